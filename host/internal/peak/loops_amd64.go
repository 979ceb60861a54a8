package peak

var readers = map[string]func(p *byte, n int){
	"avx2": ReadAVX2, "avx512": ReadAVX512, "avx512vnni": ReadAVX512,
}

var loops = map[string]Loop{
	"avx2":       {FMAAVX2, 2 * 12 * 8},
	"avx512":     {FMAAVX512, 2 * 24 * 16},
	"avx512vnni": {FMAAVX512, 2 * 24 * 16},
}
