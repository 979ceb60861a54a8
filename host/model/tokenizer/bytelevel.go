package tokenizer

// Byte-level tokenizers write each byte as one printable character: the printable characters of
// Latin-1 stand for themselves, the 68 other bytes are numbered upwards from U+0100.
var (
	byteToRune [256]rune
	runeToByte [0x144]int16 // -1 where the character stands for no byte
)

func init() {
	for i := range runeToByte {
		runeToByte[i] = -1
	}
	next := rune(0x100)
	for b := range 256 {
		r := rune(b)
		if b < '!' || b > '~' && b < 0xa1 || b == 0xad {
			r = next
			next++
		}
		byteToRune[b] = r
		runeToByte[r] = int16(b)
	}
}

// unmap gives the bytes that a token of the vocabulary stands for; ok is false if it has a
// character that stands for no byte.
func unmap(token string) (text string, ok bool) {
	out := make([]byte, 0, len(token))
	for _, r := range token {
		if int(r) >= len(runeToByte) || runeToByte[r] < 0 {
			return "", false
		}
		out = append(out, byte(runeToByte[r]))
	}
	return string(out), true
}
