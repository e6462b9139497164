package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// order is the import order of the house: which package may import which. Imports point downward only; a
// package may import what its line names, of this module and of others, and the standard library. Every
// package has a line.
//
// Do not change this to fix builds. A line changes when the map of the packages does, and for the same reason.
const order = `
	# What two machines must agree on. Pure packages know no network, system or log; time is given in.
	pure wire:                        golang.org/x/crypto/cryptobyte
	pure wire/onion/internal/polyval: golang.org/x/sys/cpu
	pure wire/onion/internal/ctr:
	pure wire/onion:                  wire wire/onion/internal/polyval wire/onion/internal/ctr golang.org/x/crypto/cryptobyte
	pure wire/netdoc:                 wire github.com/fxamacker/cbor/v2
	pure wire/mux:                    wire
	wire/link:      wire github.com/quic-go/quic-go golang.org/x/net/ipv4 golang.org/x/sys/unix golang.org/x/time/rate
	wire/directory: wire wire/netdoc wire/link github.com/quic-go/quic-go github.com/quic-go/quic-go/http3 github.com/klauspost/compress/zstd golang.org/x/sync/errgroup

	# The three roles never import one another.
	relay/pagelinks: golang.org/x/net/html golang.org/x/net/html/atom github.com/tdewolff/parse/v2 github.com/tdewolff/parse/v2/css
	relay:   relay/pagelinks wire wire/onion wire/netdoc wire/mux wire/link wire/directory golang.org/x/sync/errgroup golang.org/x/time/rate golang.org/x/sys/windows
	dirauth: wire wire/onion wire/netdoc wire/mux wire/link wire/directory golang.org/x/sync/errgroup golang.org/x/time/rate github.com/fxamacker/cbor/v2 go.etcd.io/bbolt go.etcd.io/bbolt/errors

	pure proxy/guard: wire wire/netdoc
	pure proxy/route: wire wire/netdoc
	pure proxy/timing:
	pure proxy/need:
	proxy/circuit:    wire wire/onion wire/netdoc wire/mux wire/link
	proxy:            wire wire/onion wire/netdoc wire/mux wire/link wire/directory proxy/route proxy/guard proxy/timing proxy/need proxy/circuit golang.org/x/sync/errgroup

	# The fronts know nothing of circuits: they dial by a function.
	proxy/socks:     wire github.com/armon/go-socks5
	proxy/frontdoor: wire

	proxy/localnet: wire wire/netdoc relay dirauth golang.org/x/sync/errgroup

	cmd/torproxy/internal/state: wire/onion wire/netdoc relay golang.org/x/crypto/argon2 golang.org/x/crypto/chacha20poly1305 golang.org/x/sys/windows
	cmd/torproxy/internal/browser: cmd/torproxy/internal/state golang.org/x/net/idna
	cmd/torproxy/internal/echo:    golang.org/x/net/netutil

	cmd/torproxy: wire wire/netdoc wire/link wire/directory relay dirauth proxy proxy/route proxy/socks proxy/frontdoor proxy/localnet cmd/torproxy/internal/state cmd/torproxy/internal/browser cmd/torproxy/internal/echo github.com/icholy/digest github.com/VictoriaMetrics/metrics golang.org/x/net/netutil github.com/spf13/cobra github.com/fxamacker/cbor/v2 github.com/lmittmann/tint golang.org/x/sync/errgroup golang.org/x/term
`

// impure is what pure packages do not import, with all below it.
var impure = []string{"net", "os", "log", "syscall", "io/ioutil"}

// clockwork is what pure packages do not use of package time, with the exceptions that have a reason.
var (
	clockwork = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer"}
	clocks    = map[string]string{
		"wire/mux": "the deadlines of a stream are net.Conn's, absolute times of the wall clock",
	}
)

const (
	module = "torproxy/"
	top    = "../.."
	quic   = "github.com/quic-go/"
)

// house is a line of order.
type house struct {
	pure    bool
	imports []string
}

func parseOrder(t *testing.T) map[string]house {
	all := map[string]house{}
	for line := range strings.Lines(order) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, imports, found := strings.Cut(line, ":")
		name, pure := strings.CutPrefix(name, "pure ")
		if _, twice := all[name]; twice || !found {
			t.Fatalf("order: bad line %q", line)
		}
		h := house{pure: pure, imports: strings.Fields(imports)}
		for _, i := range h.imports {
			// What is above is known already: the table itself can only point downward.
			if _, known := all[i]; !known && !strings.Contains(i, ".") {
				t.Fatalf("order: %s imports %s, which is not above it", name, i)
			}
		}
		all[name] = h
	}
	return all
}

// source is one file of the module.
type source struct {
	path    string // slashes, from the module's top
	pkg     string // its directory
	test    bool
	file    *ast.File
	imports []string
}

// parseSources reads every Go file there is, whatever it is built for.
func parseSources(t *testing.T) []source {
	var all []source
	err := filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
		base := d.Name()
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != top && (base == "testdata" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_")):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(base, ".go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, name)
		if err != nil {
			return err
		}
		s := source{path: filepath.ToSlash(rel), test: strings.HasSuffix(base, "_test.go"), file: file}
		s.pkg = path.Dir(s.path)
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			s.imports = append(s.imports, imported)
		}
		all = append(all, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestImports(t *testing.T) {
	packages := parseOrder(t)
	seen := map[string]bool{}
	for _, s := range parseSources(t) {
		h, listed := packages[s.pkg]
		if !listed {
			t.Errorf("%s: package %s is not in the table", s.path, s.pkg)
			continue
		}
		seen[s.pkg] = true
		for _, imported := range s.imports {
			if problem := forbidden(s, h, imported); problem != "" {
				t.Errorf("%s imports %q: %s", s.path, imported, problem)
			}
		}
		if h.pure && !s.test && clocks[s.pkg] == "" {
			for _, use := range clockUses(s.file) {
				t.Errorf("%s uses time.%s: in a pure package time is an argument", s.path, use)
			}
		}
	}
	for name := range packages {
		if !seen[name] {
			t.Errorf("the table has a line for %s, which has no sources", name)
		}
	}
}

// forbidden says what is wrong with an import; "" is nothing.
func forbidden(s source, h house, imported string) string {
	own, ours := strings.CutPrefix(imported, module)
	if !ours {
		own = imported
	}
	third := strings.Contains(strings.Split(imported, "/")[0], ".")
	switch {
	case s.test && strings.HasPrefix(imported, quic) && !slices.Contains(h.imports, imported):
		if !strings.HasPrefix(imported, quic+"quic-go/testutils") {
			return "of quic-go, tests take only its testutils"
		}
		return ""
	case s.test: // a test may take a whole network, or a network's socket
		return ""
	case ours || third:
		if !slices.Contains(h.imports, own) {
			return "the table has no such line"
		}
	case h.pure && isImpure(imported):
		return s.pkg + " is pure"
	}
	return ""
}

func isImpure(imported string) bool {
	return imported != "net/netip" && slices.ContainsFunc(impure, func(p string) bool {
		return imported == p || strings.HasPrefix(imported, p+"/")
	})
}

// clockUses lists what a file uses of clockwork.
func clockUses(file *ast.File) []string {
	var uses []string
	ast.Inspect(file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clockwork, sel.Sel.Name) {
			uses = append(uses, sel.Sel.Name)
		}
		return true
	})
	return uses
}

// TestForbidden makes sure that the test above can fail.
func TestForbidden(t *testing.T) {
	pure := house{pure: true, imports: []string{"wire"}}
	role := house{imports: []string{"wire", "wire/link"}}
	for _, c := range []struct {
		house    house
		test     bool
		imported string
		ok       bool
	}{
		{pure, false, "torproxy/wire", true},
		{pure, false, "net/netip", true},
		{pure, false, "math/rand/v2", true},
		{pure, false, "net", false},
		{pure, false, "net/http", false},
		{pure, false, "log/slog", false},
		{pure, false, "os/exec", false},
		{pure, false, "torproxy/wire/link", false},
		{role, false, "net/http", true},
		{role, false, "torproxy/dirauth", false},
		{role, false, "github.com/quic-go/quic-go", false},
		{role, false, "github.com/armon/go-socks5", false},
		{role, true, "torproxy/proxy/localnet", true},
		{role, true, "github.com/quic-go/quic-go/testutils/simnet", true},
		{role, true, "github.com/quic-go/quic-go", false},
	} {
		t.Run(fmt.Sprint(c.imported, c.house.pure, c.test), func(t *testing.T) {
			problem := forbidden(source{pkg: "here", test: c.test}, c.house, c.imported)
			if ok := problem == ""; ok != c.ok {
				t.Errorf("got %q, want ok to be %v", problem, c.ok)
			}
		})
	}
	if parsed, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\nvar now = time.Now()", 0); err != nil || len(clockUses(parsed)) != 1 {
		t.Errorf("time.Now was not found: %v", err)
	}
}
