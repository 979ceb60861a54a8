package process

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"

	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ra "github.com/retrievalattention/ra/sdk/go"
	contract "github.com/retrievalattention/ra/sdk/process/v1"
)

// Serve runs the plugin until the host ends it. It is the whole of main.
func Serve(d Description, s Search) {
	watch()
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: hclogKeys})))
	export, _ := s.(Exporter)
	text, err := d.json(export != nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, "the description:", err)
		os.Exit(1)
	}
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: goplugin.HandshakeConfig{
			ProtocolVersion: contract.ProtocolVersion, MagicCookieKey: contract.CookieKey, MagicCookieValue: contract.CookieValue,
		},
		Plugins: goplugin.PluginSet{contract.PluginName: &server{search: s, exporter: export, description: text}},
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(contract.MaxMessage), grpc.UnaryInterceptor(recovered))...)
		},
	})
}

// hclogKeys names the parts of a log line as the host expects them.
func hclogKeys(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.MessageKey:
		a.Key = "@message"
	case slog.TimeKey:
		a.Key = "@timestamp"
	case slog.LevelKey:
		a = slog.String("@level", strings.ToLower(a.Value.String()))
	}
	return a
}

// watch ends the plugin and the processes that it started when the host ends:
// the lifeline is a pipe that the host holds the other end of.
func watch() {
	fd, err := strconv.Atoi(os.Getenv(contract.LifelineEnv))
	if err != nil {
		return // started by hand: go-plugin says so
	}
	syscall.CloseOnExec(fd)
	go func() {
		_, _ = io.Copy(io.Discard, os.NewFile(uintptr(fd), "lifeline"))
		if syscall.Getpgrp() == os.Getpid() {
			_ = syscall.Kill(0, syscall.SIGKILL)
		}
		os.Exit(1)
	}()
}

// recovered makes an error of a panic, so that a bug in one call does not
// cost the index.
func recovered(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (_ any, err error) {
	defer func() {
		if r := recover(); r != nil {
			fmt.Fprintf(os.Stderr, "panic in %s: %v\n%s", info.FullMethod, r, debug.Stack())
			err = status.Errorf(codes.Internal, "panic: %v", r)
		}
	}()
	return handle(ctx, req)
}

// server serves a Search by the contract.
type server struct {
	goplugin.NetRPCUnsupportedPlugin
	contract.UnimplementedSearchServer

	search                Search
	exporter              Exporter // nil when the plugin is none
	description           string
	keys, values, queries *share
}

func (s *server) GRPCServer(_ *goplugin.GRPCBroker, to *grpc.Server) error {
	contract.RegisterSearchServer(to, s)
	return nil
}

func (s *server) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, fmt.Errorf("a plugin is no host")
}

func (s *server) Describe(context.Context, *contract.DescribeRequest) (*contract.DescribeResponse, error) {
	return &contract.DescribeResponse{Description: s.description}, nil
}

func (s *server) Configure(_ context.Context, q *contract.ConfigureRequest) (*contract.ConfigureResponse, error) {
	for _, h := range q.Shares {
		syscall.CloseOnExec(int(h.Fd))
		sh := &share{file: os.NewFile(uintptr(h.Fd), h.Kind.String())}
		switch h.Kind {
		case contract.ShareKind_SHARE_KIND_KEYS:
			s.keys = sh
		case contract.ShareKind_SHARE_KIND_VALUES:
			s.values = sh
		case contract.ShareKind_SHARE_KIND_QUERIES:
			s.queries = sh
		}
	}
	return &contract.ConfigureResponse{}, s.search.Configure(ra.ParseParams(q.Params), q.Seed)
}

func (s *server) Build(ctx context.Context, q *contract.BuildRequest) (*contract.BuildResponse, error) {
	b := &Build{Sequence: s.sequence(q.Sequence), Layer: int(q.Layer), Heads: int(q.Heads)}
	if q.Queries != nil {
		var err error
		if b.Queries, err = view(s.queries, *q.Queries, b.Tokens*b.Heads, b.HeadDim, F32); err != nil {
			return nil, fmt.Errorf("the prefill's queries: %w", err)
		}
	}
	return &contract.BuildResponse{}, s.search.Build(ctx, b)
}

func (s *server) Append(ctx context.Context, q *contract.AppendRequest) (*contract.AppendResponse, error) {
	return &contract.AppendResponse{}, s.search.Append(ctx, int(q.Layer), s.sequence(q.Sequence), ranges(q.Ranges))
}

func (s *server) Search(ctx context.Context, q *contract.SearchRequest) (*contract.SearchResponse, error) {
	c := &Call{Layer: int(q.Layer), Heads: int(q.Heads), Tokens: int(q.Tokens), TopK: int(q.TopK), Step: int(q.Step)}
	for _, x := range q.Sequences {
		c.Sequences = append(c.Sequences, s.sequence(x))
	}
	c.queries = make([]float32, len(q.Queries)/4)
	for i := range c.queries {
		c.queries[i] = math.Float32frombits(binary.LittleEndian.Uint32(q.Queries[4*i:]))
	}
	c.hits = make([]hits, c.Count())
	if err := s.search.Search(ctx, c); err != nil {
		return nil, err
	}
	return c.answer(), nil
}

// answer gathers what was emitted.
func (c *Call) answer() *contract.SearchResponse {
	a := &contract.SearchResponse{Counts: make([]uint32, len(c.hits)), KeysScored: uint64(c.scored)}
	total, biased := 0, false
	for i, h := range c.hits {
		a.Counts[i] = uint32(len(h.ids))
		total += len(h.ids)
		biased = biased || h.bias != nil
	}
	a.Ids = make([]byte, 0, 4*total)
	for _, h := range c.hits {
		for j, id := range h.ids {
			a.Ids = binary.LittleEndian.AppendUint32(a.Ids, id)
			if biased {
				b := float32(0)
				if h.bias != nil {
					b = h.bias[j]
				}
				a.Bias = binary.LittleEndian.AppendUint32(a.Bias, math.Float32bits(b))
			}
		}
	}
	return a
}

func (s *server) Forget(_ context.Context, q *contract.ForgetRequest) (*contract.ForgetResponse, error) {
	s.search.Forget(q.Views)
	return &contract.ForgetResponse{}, nil
}

func (s *server) Export(q *contract.ExportRequest, to grpc.ServerStreamingServer[contract.Chunk]) error {
	if s.exporter == nil {
		return status.Error(codes.Unimplemented, "the plugin exports nothing")
	}
	w := bufio.NewWriterSize(chunks{to}, contract.MaxChunk)
	if err := s.exporter.Export(to.Context(), q.View, int(q.Layer), w); err != nil {
		return err
	}
	return w.Flush()
}

// chunks sends what is written to it.
type chunks struct {
	to grpc.ServerStreamingServer[contract.Chunk]
}

func (c chunks) Write(b []byte) (int, error) {
	for sent := 0; sent < len(b); {
		n := min(len(b)-sent, contract.MaxChunk)
		if err := c.to.Send(&contract.Chunk{Data: b[sent : sent+n]}); err != nil {
			return sent, err
		}
		sent += n
	}
	return len(b), nil
}

func (s *server) Import(from grpc.ClientStreamingServer[contract.ImportRequest, contract.ImportResponse]) error {
	if s.exporter == nil {
		return status.Error(codes.Unimplemented, "the plugin imports nothing")
	}
	first, err := from.Recv()
	if err != nil {
		return err
	}
	if first.Sequence == nil {
		return status.Error(codes.InvalidArgument, "the first message of an import says nothing of the sequence")
	}
	b := &Build{Sequence: s.sequence(first.Sequence), Layer: int(first.Layer), Heads: int(first.Heads)}
	if err := s.exporter.Import(from.Context(), b, &imported{from: from, data: first.Data}); err != nil {
		return err
	}
	return from.SendAndClose(&contract.ImportResponse{})
}

// imported reads what comes in.
type imported struct {
	from grpc.ClientStreamingServer[contract.ImportRequest, contract.ImportResponse]
	data []byte
}

func (r *imported) Read(b []byte) (int, error) {
	for len(r.data) == 0 {
		next, err := r.from.Recv() // io.EOF at the end
		if err != nil {
			return 0, err
		}
		r.data = next.Data
	}
	n := copy(b, r.data)
	r.data = r.data[n:]
	return n, nil
}

func (s *server) sequence(x *contract.Sequence) *Sequence {
	q := &Sequence{
		View: x.View, Parent: x.Parent, Tokens: int(x.Tokens), Indexed: ranges(x.Indexed),
		KVHeads: int(x.KvHeads), HeadDim: int(x.HeadDim), DType: DType(x.Dtype),
		keys: s.keys, values: s.values,
	}
	for _, g := range x.Segments {
		q.segments = append(q.segments, segment{int(g.Start), int(g.Rows), g.Keys, g.Values, g.HeadStride})
	}
	return q
}

func ranges(in []*contract.Range) []Range {
	var out []Range
	for _, r := range in {
		out = append(out, Range{int(r.Lo), int(r.Hi)})
	}
	return out
}
