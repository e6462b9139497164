package main

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// labels makes the isolation labels of streams: those of different labels never share a circuit. Each port
// has its own, and each pair of user name and password on it; neither can be told from the label, nor
// tried on it, as its key never leaves the process.
type labels struct {
	key [32]byte
}

func newLabels() *labels {
	l := &labels{}
	rand.Read(l.key[:])
	return l
}

// socks is the label of a SOCKS connection.
func (l *labels) socks(user, password string) string {
	if user == "" && password == "" {
		return "socks"
	}
	mac := hmac.New(sha256.New, l.key[:])
	mac.Write([]byte{byte(len(user))}) // at most 255 by RFC 1929: ("a", "bc") is not ("ab", "c")
	mac.Write([]byte(user))
	mac.Write([]byte(password))
	return "socks:" + hex.EncodeToString(mac.Sum(nil)[:16])
}

// http is the label of a request at the front door, which has made a key of its credentials already.
func (l *labels) http(isolation string) string {
	if isolation == "" {
		return "http"
	}
	return "http:" + isolation
}

// shortLabel is a label as people are shown it: long enough to tell one from another.
func shortLabel(label string) string {
	port, key, _ := strings.Cut(label, ":")
	if key == "" {
		return port
	}
	return port + ":" + key[:min(8, len(key))]
}
