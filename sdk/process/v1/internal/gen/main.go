// Command gen compiles the contract's .proto and writes its Go code and its
// Python module. It needs no protoc: the compiler is a library, and the Go
// generators are run at the versions that go.mod pins.
//
//	gen -proto DIR -go DIR -python FILE
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

const file = "process.proto"

func main() {
	from := flag.String("proto", ".", "folder of "+file)
	goDir := flag.String("go", ".", "folder for the Go code")
	python := flag.String("python", "", "Python module to write")
	flag.Parse()
	if err := run(*from, *goDir, *python); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(from, goDir, python string) error {
	compiler := protocompile.Compiler{
		Resolver:       &protocompile.SourceResolver{ImportPaths: []string{from}},
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := compiler.Compile(context.Background(), file)
	if err != nil {
		return err
	}
	desc := protoutil.ProtoFromFileDescriptor(files[0])
	for _, tool := range []string{"google.golang.org/protobuf/cmd/protoc-gen-go", "google.golang.org/grpc/cmd/protoc-gen-go-grpc"} {
		if err := generate(tool, desc, goDir); err != nil {
			return fmt.Errorf("%s: %w", tool, err)
		}
	}
	return writePython(desc, python)
}

// generate runs a generator as protoc would and writes its files.
func generate(tool string, desc *descriptorpb.FileDescriptorProto, dir string) error {
	in, err := proto.Marshal(&pluginpb.CodeGeneratorRequest{
		FileToGenerate: []string{file}, Parameter: proto.String("paths=source_relative"),
		ProtoFile: []*descriptorpb.FileDescriptorProto{desc},
	})
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "tool", tool)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, os.Stderr
	if err := cmd.Run(); err != nil {
		return err
	}
	var answer pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(out.Bytes(), &answer); err != nil {
		return err
	}
	if answer.Error != nil {
		return errors.New(*answer.Error)
	}
	for _, f := range answer.File {
		if err := os.WriteFile(filepath.Join(dir, f.GetName()), []byte(f.GetContent()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// writePython embeds the descriptor: Python's protobuf makes the classes when
// the module is imported, whatever its version.
func writePython(desc *descriptorpb.FileDescriptorProto, path string) error {
	desc = proto.Clone(desc).(*descriptorpb.FileDescriptorProto)
	desc.SourceCodeInfo, desc.Options = nil, nil
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(desc)
	if err != nil {
		return err
	}
	var b strings.Builder
	b.WriteString(`# Code generated from sdk/process/v1/process.proto by its internal/gen. DO NOT EDIT.
"""The messages of the contract."""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_file = descriptor_pb2.FileDescriptorProto.FromString(
`)
	for len(data) > 0 {
		n := min(len(data), 24)
		b.WriteString("    b\"")
		for _, c := range data[:n] {
			fmt.Fprintf(&b, "\\x%02x", c)
		}
		b.WriteString("\"\n")
		data = data[n:]
	}
	b.WriteString(`)
_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file)


def _class(name):
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(_file.package + "." + name))


SERVICE = _file.package + "." + _file.service[0].name
`)
	for _, m := range desc.MessageType {
		fmt.Fprintf(&b, "%s = _class(%q)\n", m.GetName(), m.GetName())
	}
	for _, e := range desc.EnumType {
		for _, v := range e.Value {
			fmt.Fprintf(&b, "%s = %d\n", v.GetName(), v.GetNumber())
		}
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}
