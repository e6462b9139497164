package state

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"
)

// A sealed key is a PEM block whose headers say how its key was derived, and whose bytes are
//
//	salt 16 | nonce 24 | XChaCha20-Poly1305 of the secret
//	key = argon2id(passphrase, salt, Time, Memory, Threads)      associated data: label | "\n" | the headers, as printed below
const (
	typeSealed = "TORPROXY SEALED KEY"
	kdf        = "argon2id"
	saltSize   = 16
)

// ErrPassphrase says that a sealed file was not opened: the two causes cannot be told apart.
var ErrPassphrase = errors.New("the passphrase is wrong, or the file is damaged")

// argon are the parameters of argon2id.
type argon struct {
	time    uint32 // passes
	memory  uint32 // KiB
	threads uint8
}

// sealing is how new files are sealed: half a second on one core of 2024, and 256 MiB.
var sealing = argon{time: 3, memory: 256 << 10, threads: 4}

// check bounds what a file may ask of whoever opens it, and how weak it may be.
func (a argon) check() error {
	switch {
	case a.time < 1 || a.time > 64:
		return fmt.Errorf("%d passes of %s are not 1 to 64", a.time, kdf)
	case a.memory < 8<<10 || a.memory > 2<<20:
		return fmt.Errorf("%d KiB for %s are not 8 MiB to 2 GiB", a.memory, kdf)
	case a.threads < 1 || a.threads > 64:
		return fmt.Errorf("%d threads of %s are not 1 to 64", a.threads, kdf)
	}
	return nil
}

// aead derives the key.
func (a argon) aead(passphrase, salt []byte) cipher.AEAD {
	key := argon2.IDKey(passphrase, salt, a.time, a.memory, a.threads, chacha20poly1305.KeySize)
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		panic(err) // the key's length is a constant
	}
	return aead
}

func (a argon) headers() map[string]string {
	return map[string]string{
		"KDF":     kdf,
		"Memory":  strconv.FormatUint(uint64(a.memory), 10),
		"Threads": strconv.FormatUint(uint64(a.threads), 10),
		"Time":    strconv.FormatUint(uint64(a.time), 10),
	}
}

// associated is what a seal covers besides the secret.
func (a argon) associated(label string) []byte {
	return fmt.Appendf(nil, "%s\nKDF: %s\nMemory: %d\nThreads: %d\nTime: %d\n", label, kdf, a.memory, a.threads, a.time)
}

func parseArgon(headers map[string]string) (argon, error) {
	if len(headers) != 4 || headers["KDF"] != kdf {
		return argon{}, errors.New("it is sealed in a way that this version does not know")
	}
	var numbers [3]uint64
	for i, name := range []string{"Time", "Memory", "Threads"} {
		n, err := strconv.ParseUint(headers[name], 10, 24)
		if err != nil || strconv.FormatUint(n, 10) != headers[name] {
			return argon{}, fmt.Errorf("its header %s is no number", name)
		}
		numbers[i] = n
	}
	if numbers[2] > 255 {
		return argon{}, errors.New("its header Threads is too high")
	}
	a := argon{time: uint32(numbers[0]), memory: uint32(numbers[1]), threads: uint8(numbers[2])}
	return a, a.check()
}

// seal puts a secret under a passphrase. The label says what it is: one sealed as something else is refused.
func seal(label string, secret, passphrase []byte, a argon) (*pem.Block, error) {
	if len(passphrase) == 0 {
		return nil, errors.New("the passphrase is empty")
	}
	salted := make([]byte, saltSize+chacha20poly1305.NonceSizeX)
	rand.Read(salted)
	salt, nonce := salted[:saltSize], salted[saltSize:]
	sealed := a.aead(passphrase, salt).Seal(salted, nonce, secret, a.associated(label))
	return &pem.Block{Type: typeSealed, Headers: a.headers(), Bytes: sealed}, nil
}

// unseal returns the secret.
func unseal(label string, block *pem.Block, passphrase []byte) ([]byte, error) {
	a, err := parseArgon(block.Headers)
	if err != nil {
		return nil, err
	}
	if len(block.Bytes) < saltSize+chacha20poly1305.NonceSizeX+chacha20poly1305.Overhead {
		return nil, ErrPassphrase
	}
	salt, rest := block.Bytes[:saltSize], block.Bytes[saltSize:]
	nonce, sealed := rest[:chacha20poly1305.NonceSizeX], rest[chacha20poly1305.NonceSizeX:]
	secret, err := a.aead(passphrase, salt).Open(nil, nonce, sealed, a.associated(label))
	if err != nil {
		return nil, ErrPassphrase
	}
	return secret, nil
}
