package state

import (
	"bytes"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func open(t *testing.T) *Dir {
	t.Helper()
	d, err := Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestOpen(t *testing.T) {
	d := open(t)
	if _, err := Open(d.path); !errors.Is(err, ErrLocked) {
		t.Errorf("a second time: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(d.path)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	if runtime.GOOS == "windows" {
		return
	}
	if err := os.Chmod(d.path, 0o750); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(d.path); !errors.Is(err, ErrExposed) {
		t.Errorf("readable by a group: %v", err)
	}
}

func TestIdentity(t *testing.T) {
	d := open(t)
	if _, err := d.Identity(nil); !errors.Is(err, ErrNoIdentity) {
		t.Errorf("of an empty directory: %v", err)
	}
	key, created, err := d.OpenIdentity(nil)
	if err != nil || !created {
		t.Fatal(created, err)
	}
	again, created, err := d.OpenIdentity(nil)
	if err != nil || created || !again.Equal(key) {
		t.Errorf("opened again: created %v, the same %v, %v", created, again.Equal(key), err)
	}
	if _, err := d.CreateIdentity(nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("created over it: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(d.path, ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	info, err := os.Stat(d.Path(identityName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(d.Path(identityName), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Identity(nil); !errors.Is(err, ErrExposed) {
		t.Errorf("readable by others: %v", err)
	}
}

// weak keeps the tests fast.
var weak = argon{time: 1, memory: 8 << 10, threads: 1}

func says(passphrase string) Passphrase {
	return func() ([]byte, error) { return []byte(passphrase), nil }
}

func TestSealIdentity(t *testing.T) {
	defer func(a argon) { sealing = a }(sealing)
	sealing = weak
	d := open(t)
	key, err := d.CreateIdentity([]byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Identity(nil); !errors.Is(err, ErrSealed) {
		t.Errorf("without a passphrase: %v", err)
	}
	if _, err := d.Identity(says("wrong")); !errors.Is(err, ErrPassphrase) {
		t.Errorf("with a wrong one: %v", err)
	}
	if err := d.SealIdentity(says("correct horse"), []byte("battery staple")); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Identity(says("battery staple")); err != nil || !got.Equal(key) {
		t.Errorf("sealed anew: %v", err)
	}
	file, err := os.ReadFile(d.Path(identityName))
	if err != nil || bytes.Contains(file, key.Seed()) {
		t.Errorf("the file has the seed: %v", err)
	}
}

// TestUnsealRefuses changes each part of a sealed file.
func TestUnsealRefuses(t *testing.T) {
	secret := []byte("a secret of some bytes")
	good := func() *pem.Block {
		b, err := seal("label", secret, []byte("passphrase"), weak)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if got, err := unseal("label", good(), []byte("passphrase")); err != nil || !bytes.Equal(got, secret) {
		t.Fatal(err)
	}
	if _, err := unseal("other", good(), []byte("passphrase")); !errors.Is(err, ErrPassphrase) {
		t.Errorf("another label: %v", err)
	}
	header := func(name, value string) func(*pem.Block) {
		return func(b *pem.Block) { b.Headers[name] = value }
	}
	for name, change := range map[string]func(*pem.Block){
		"first byte":          func(b *pem.Block) { b.Bytes[0] ^= 1 },
		"nonce":               func(b *pem.Block) { b.Bytes[saltSize] ^= 1 },
		"last byte":           func(b *pem.Block) { b.Bytes[len(b.Bytes)-1] ^= 1 },
		"cut":                 func(b *pem.Block) { b.Bytes = b.Bytes[:saltSize+3] },
		"empty":               func(b *pem.Block) { b.Bytes = nil },
		"other KDF":           header("KDF", "md5"),
		"more headers":        header("More", "1"),
		"fewer headers":       func(b *pem.Block) { delete(b.Headers, "Time") },
		"other parameters":    header("Time", "2"),
		"no passes":           header("Time", "0"),
		"too many passes":     header("Time", "65"),
		"too much memory":     header("Memory", "2097153"),
		"too little memory":   header("Memory", "1024"),
		"all memory there is": header("Memory", "4294967295"),
		"no threads":          header("Threads", "0"),
		"257 threads":         header("Threads", "257"),
		"no canonical number": header("Time", "01"),
	} {
		b := good()
		change(b)
		if _, err := unseal("label", b, []byte("passphrase")); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := seal("label", secret, nil, weak); err == nil {
		t.Error("an empty passphrase was taken")
	}
}

func TestDecodeIdentityRefuses(t *testing.T) {
	_, key, _ := ed25519.GenerateKey(nil)
	good, err := encodeIdentity(key, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"nothing":     "",
		"text":        "hello",
		"two keys":    string(good) + string(good),
		"another PEM": strings.ReplaceAll(string(good), "PRIVATE KEY", "CERTIFICATE"),
		"cut":         string(good[:len(good)/2]),
		"no PKCS #8":  string(pem.EncodeToMemory(&pem.Block{Type: typePlain, Bytes: []byte("x")})),
	} {
		if _, err := decodeIdentity([]byte(data), says("x")); err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), string(key.Seed())) {
			t.Errorf("%s: the error has the key", name)
		}
	}
}

func TestCreate(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := Create(name, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Create(name, []byte("two"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("created twice: %v", err)
	}
	if got, _ := os.ReadFile(name); string(got) != "one" {
		t.Errorf("it holds %q", got)
	}
	if err := Replace(name, []byte("three"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(name); string(got) != "three" {
		t.Errorf("replaced, it holds %q", got)
	}
	if _, err := ReadBounded(name, 4); err == nil {
		t.Error("5 bytes were read within a bound of 4")
	}
}

func FuzzDecodeIdentity(f *testing.F) {
	_, key, _ := ed25519.GenerateKey(nil)
	plain, _ := encodeIdentity(key, nil)
	f.Add(plain)
	block, _ := seal(identityLabel, []byte("x"), []byte("p"), weak)
	f.Add(pem.EncodeToMemory(block))
	f.Fuzz(func(t *testing.T, data []byte) {
		// Asking for the passphrase fails: what a file may make us compute is argon.check's.
		key, err := decodeIdentity(data, func() ([]byte, error) { return nil, ErrSealed })
		if (err == nil) != (len(key) == ed25519.PrivateKeySize) {
			t.Errorf("%d bytes of key, %v", len(key), err)
		}
	})
}

// TestSweep checks that what a killed process was writing is gone when the directory is opened again, and that
// nothing else is.
func TestSweep(t *testing.T) {
	path := filepath.Join(t.TempDir(), "role")
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	temp, err := writeTemp(d.Path(identityName), []byte("secret"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{replayName + newSuffix, identityName, ".other"} {
		if err := os.WriteFile(d.Path(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d.Close()
	if d, err = Open(path); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for name, stays := range map[string]bool{temp: false, d.Path(replayName + newSuffix): false, d.Path(identityName): true, d.Path(".other"): true} {
		if _, err := os.Stat(name); (err == nil) != stays {
			t.Errorf("%s is there: %v, want %v", name, err == nil, stays)
		}
	}
}
