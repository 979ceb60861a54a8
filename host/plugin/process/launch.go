package process

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"

	"github.com/retrievalattention/ra/host/plugin"
	abi "github.com/retrievalattention/ra/sdk/abi/v1"
	contract "github.com/retrievalattention/ra/sdk/process/v1"
)

// process is a running plugin process.
type process struct {
	*child
	client  *goplugin.Client
	rpc     contract.SearchClient
	number  int64 // of the start, from 1 on
	started time.Time
}

// launch checks the plugin's file, runs it, asks what it is and configures
// it.
func (p *Plugin) launch(ctx context.Context, number int64) (*process, *plugin.Description, error) {
	if err := p.checkFile(); err != nil {
		return nil, nil, err
	}
	r := &process{number: number, started: p.opts.clock.Now()}
	d, err := p.open(ctx, r)
	if err != nil {
		r.stop()
		return nil, nil, err
	}
	return r, d, nil
}

// open fills in r, as far as it comes.
func (p *Plugin) open(ctx context.Context, r *process) (*plugin.Description, error) {
	config, err := p.clientConfig(r)
	if err != nil {
		return nil, err
	}
	r.client = goplugin.NewClient(config)
	if err := p.connect(r); err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, p.opts.Limits.StartTimeout)
	defer cancel()
	answer, err := r.rpc.Describe(limited, &contract.DescribeRequest{})
	if err != nil {
		return nil, p.callError(ctx, r, "describe", err)
	}
	d, err := plugin.ParseDescription([]byte(answer.Description), append(slices.Clone(Grants), contract.FeatureExport))
	if err != nil {
		return nil, err
	}
	if d.Kind != abi.KindSearch {
		return nil, fmt.Errorf("%w: %s is a %s plugin; a process is a %s plugin", plugin.ErrABI, d.Name, d.Kind, abi.KindSearch)
	}
	if len(d.Needs) > 0 {
		return nil, fmt.Errorf("%w: the description lists needs, which are a wasm module's; a process lists features", plugin.ErrABI)
	}
	if err := p.checkGrants(d); err != nil {
		return nil, err
	}
	params, err := d.Resolve(p.opts.Params)
	if err != nil {
		return nil, err
	}
	_, err = r.rpc.Configure(limited, &contract.ConfigureRequest{Params: params, Shares: p.shares, Seed: p.opts.Seed})
	if err != nil {
		return nil, p.callError(ctx, r, "configure", err)
	}
	return d, nil
}

// checkGrants refuses a plugin that needs more than it was granted.
func (p *Plugin) checkGrants(d *plugin.Description) error {
	for _, f := range d.Features {
		if f != contract.FeatureExport && !slices.Contains(p.opts.Grants, f) {
			return fmt.Errorf("%w: the plugin needs the grant %q; if it may have it, write grants = %s in [[plugin]] %q",
				plugin.ErrCapability, f, quoteList(append(slices.Clone(p.opts.Grants), f)), p.opts.Name)
		}
	}
	return nil
}

func quoteList(list []string) string {
	return strings.ReplaceAll(fmt.Sprintf("%q", list), "\" \"", "\", \"")
}

// clientConfig says how to run the process. The handshake is that of
// go-plugin's AutoMTLS, but with a certificate on P-256: AutoMTLS makes one on
// P-521, which the TLS of gRPC for Python and C++ (BoringSSL) does not take
// from a client.
func (p *Plugin) clientConfig(r *process) (*goplugin.ClientConfig, error) {
	identity, certificate, err := newCertificate()
	if err != nil {
		return nil, fmt.Errorf("%w: make a certificate: %w", plugin.ErrStart, err)
	}
	log := &logger{to: p.guard.Log.With("from", "plugin")}
	own := &logger{to: p.guard.Log.With("from", "go-plugin"), quiet: true}
	return &goplugin.ClientConfig{
		HandshakeConfig: goplugin.HandshakeConfig{
			ProtocolVersion: contract.ProtocolVersion, MagicCookieKey: contract.CookieKey, MagicCookieValue: contract.CookieValue,
		},
		Plugins:          goplugin.PluginSet{contract.PluginName: dispenser{}},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		SkipHostEnv:      true,
		StartTimeout:     p.opts.Limits.StartTimeout,
		TLSConfig:        &tls.Config{Certificates: []tls.Certificate{identity}, MinVersion: tls.VersionTLS13, ServerName: "localhost"},
		SyncStdout:       lines{log}, SyncStderr: lines{log},
		Logger: hclog.New(&hclog.LoggerOptions{Output: own, JSONFormat: true, Level: hclog.Debug}),
		RunnerFunc: func(_ hclog.Logger, spec *exec.Cmd, socket string) (runner.Runner, error) {
			cmd := p.command()
			cmd.Env = append(cmd.Env, spec.Env...) // what go-plugin tells it
			cmd.Env = append(cmd.Env, "PLUGIN_CLIENT_CERT="+string(certificate))
			r.child = &child{cmd: cmd, log: log, socket: socket, done: make(chan struct{})}
			return r.child, nil
		},
	}, nil
}

// command is the process as the configuration has it, with the files that it
// inherits.
func (p *Plugin) command() *exec.Cmd {
	o := &p.opts
	path, args := o.Path, o.Args
	if filepath.Base(path) == path {
		path = "." + string(filepath.Separator) + path // not from $PATH
	}
	if o.Interpreter != "" {
		path, args = o.Interpreter, append([]string{o.Path}, args...)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = []string{}
	for _, k := range slices.Sorted(maps.Keys(o.Env)) {
		cmd.Env = append(cmd.Env, k+"="+o.Env[k])
	}
	cmd.ExtraFiles = p.files
	return cmd
}

// connect starts the process and makes the client of its service.
func (p *Plugin) connect(r *process) error {
	protocol, err := r.client.Client()
	if err != nil {
		return p.handshakeError(r, err)
	}
	service, err := protocol.Dispense(contract.PluginName)
	if err != nil {
		return fmt.Errorf("%w: %w", plugin.ErrStart, err)
	}
	r.rpc = service.(contract.SearchClient)
	return nil
}

// handshakeError says in what way a process did not introduce itself.
func (p *Plugin) handshakeError(r *process, err error) error {
	if r.child == nil || r.done == nil || errors.Is(err, plugin.ErrStart) {
		return err
	}
	line, spoke := r.first.line()
	parts := strings.Split(line, "|")
	switch {
	case !spoke && strings.HasPrefix(err.Error(), "timeout"):
		return fmt.Errorf("%w: no handshake within %s (limits.start_timeout)%s", plugin.ErrStart, p.opts.Limits.StartTimeout, r.log.said())
	case len(parts) >= 4 && parts[1] != fmt.Sprint(contract.ProtocolVersion):
		return fmt.Errorf("%w: the plugin speaks version %s of the process contract, this host version %d: update the older of the two",
			plugin.ErrABI, clip(printable(parts[1]), 16), contract.ProtocolVersion)
	case len(parts) >= 4:
		return fmt.Errorf("%w: %s", plugin.ErrStart, clip(err.Error(), 512))
	case spoke:
		return fmt.Errorf("%w: its first line on standard output is %q, not a handshake: a plugin writes nothing there before it serves; is %s a plugin?",
			plugin.ErrStart, clip(line, 80), p.opts.Path)
	}
	return fmt.Errorf("%w: %s", plugin.ErrStart, r.status())
}

// stop ends the process, by request if it listens and by force if not, and
// frees the client.
func (r *process) stop() {
	if r.client == nil {
		return
	}
	stopped := make(chan struct{})
	go func() {
		r.client.Kill()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(2 * time.Second):
	}
	if r.child != nil {
		r.kill()
	}
	<-stopped
	if r.child == nil {
		return
	}
	if r.cmd.Process != nil {
		<-r.done
	}
	_ = os.RemoveAll(r.socket) // go-plugin leaves it when the process did not start
}

const digestPrefix = "sha256:"

// checkFile verifies that the plugin's file is the one that was loaded, and
// at first the one that was pinned.
func (p *Plugin) checkFile() error {
	f, err := os.Open(p.opts.Path)
	if err != nil {
		return fmt.Errorf("%w: %w", plugin.ErrStart, err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("%w: read %s: %w", plugin.ErrStart, p.opts.Path, err)
	}
	got := digestPrefix + hex.EncodeToString(h.Sum(nil))
	pinned := digestPrefix + strings.ToLower(strings.TrimPrefix(p.opts.SHA256, digestPrefix))
	switch {
	case p.guard.Digest != "" && got != p.guard.Digest:
		return fmt.Errorf("%w: %s is %s, it was %s when it was loaded", plugin.ErrDigest, p.opts.Path, got, p.guard.Digest)
	case p.opts.SHA256 != "" && got != pinned:
		return fmt.Errorf("%w: %s is %s, pinned is %s; if the new file is the right one, write sha256 = %q in [[plugin]] %q",
			plugin.ErrDigest, p.opts.Path, got, pinned, strings.TrimPrefix(got, digestPrefix), p.opts.Name)
	case p.guard.Digest == "":
		p.guard.Digest = got
	}
	return nil
}

// newCertificate makes the host's side of mutual TLS for one process.
func newCertificate() (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().AddDate(30, 0, 0),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		IsCA:        true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, text, nil
}

// dispenser makes the client of the service out of go-plugin's connection.
type dispenser struct {
	goplugin.NetRPCUnsupportedPlugin
}

func (dispenser) GRPCServer(*goplugin.GRPCBroker, *grpc.Server) error {
	return errors.New("the host serves nothing")
}

func (dispenser) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return contract.NewSearchClient(conn), nil
}

// lines logs what go-plugin forwards of a Go plugin's standard output and
// error after the handshake.
type lines struct{ log *logger }

func (l lines) Write(b []byte) (int, error) {
	for line := range strings.Lines(string(b)) {
		l.log.line(clip(strings.TrimRight(line, "\n"), maxLine))
	}
	return len(b), nil
}
