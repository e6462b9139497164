package dirauth

import (
	"context"
	"crypto/ed25519"
	"errors"
	"net/http"
	"net/netip"

	"torproxy/wire"
	"torproxy/wire/directory"
	"torproxy/wire/netdoc"
)

// registrationsAtOnce bounds the descriptors that are being judged: it takes 0.1 ms each, and strangers may
// send them.
const registrationsAtOnce = 16

// handler serves what relays, clients and the other authorities ask for.
func (v *voter) handler() http.Handler {
	mux := http.NewServeMux()
	mirror := v.follower.Mirror()
	mux.Handle(directory.ConsensusPath, mirror)
	mux.Handle(directory.KeysPath, mirror)
	mux.Handle(directory.DescriptorPath, atMost(registrationsAtOnce, directory.RegistrationHandler(v.register)))
	mux.HandleFunc("GET "+directory.DescriptorPath+"/{digest}", v.serveDescriptor)
	mux.HandleFunc("GET "+directory.VotePath+"/{digest}", v.amongAuthorities(v.serveVote))
	for w := range words {
		mux.HandleFunc("POST "+pathOf(w), v.amongAuthorities(func(rw http.ResponseWriter, req *http.Request, from wire.ID) {
			v.serveWord(w, rw, req, from)
		}))
	}
	return mux
}

// atMost answers 503 to more than n requests at a time.
func atMost(n int, h http.Handler) http.Handler {
	slots := make(chan struct{}, n)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			h.ServeHTTP(w, r)
		default:
			http.Error(w, "busy, try again", http.StatusServiceUnavailable)
		}
	})
}

// register judges a descriptor that a relay, or anybody, posted.
func (v *voter) register(_ context.Context, raw []byte, from netip.AddrPort) directory.Registration {
	d, err := netdoc.ParseDescriptor(raw)
	if err != nil {
		v.log.Debug("registration refused", "from", from, "reason", err)
		v.counts.registration(directory.Refused)
		return refused(err)
	}
	answer := v.roster.admit(d, v.now())
	v.counts.registration(answer.Result)
	v.log.Debug("registration", "relay", d.ID.Short(), "nickname", d.Nickname, "from", from, "result", answer.String())
	return answer
}

func (v *voter) serveDescriptor(w http.ResponseWriter, r *http.Request) {
	digest, err := netdoc.ParseDigest(r.PathValue("digest"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	d := v.descriptor(digest)
	if d == nil {
		http.Error(w, "no such descriptor", http.StatusNotFound)
		return
	}
	serveDocument(w, d.Raw())
}

// serveVote serves a vote to another authority, which an echo told about it.
func (v *voter) serveVote(w http.ResponseWriter, r *http.Request, _ wire.ID) {
	digest, err := netdoc.ParseDigest(r.PathValue("digest"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	vote := v.heldVote(digest)
	if vote == nil {
		http.Error(w, "no such vote", http.StatusNotFound)
		return
	}
	serveDocument(w, vote.Raw())
}

func serveDocument(w http.ResponseWriter, raw []byte) {
	w.Header().Set("Content-Type", directory.ContentType)
	w.Write(raw)
}

// serveWord takes in a word of another authority.
func (v *voter) serveWord(word Word, w http.ResponseWriter, r *http.Request, from wire.ID) {
	raw, ok := directory.ReadBody(w, r)
	if !ok {
		return
	}
	err := v.take(word, raw, from)
	v.counts.took(word, err)
	if err == nil {
		w.WriteHeader(http.StatusOK)
		return
	}
	v.log.Debug("word refused", "word", word, "from", from.Short(), "reason", err)
	http.Error(w, err.Error(), statusOf(err))
}

// statusOf tells the sender whether to try again: only while the round has not begun here.
func statusOf(err error) int {
	switch {
	case errors.Is(err, errEarly):
		return http.StatusServiceUnavailable
	case errors.Is(err, errLate), errors.Is(err, errOver), errors.Is(err, errTwice):
		return http.StatusConflict
	case errors.Is(err, errAuthor):
		return http.StatusForbidden
	default:
		return http.StatusBadRequest
	}
}

// amongAuthorities lets a request pass only if its connection's other end proved, in the TLS handshake, to
// be another authority of the network.
func (v *voter) amongAuthorities(h func(http.ResponseWriter, *http.Request, wire.ID)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		from, ok := peerOf(r)
		if !ok || !listed(v.network, from) || from == v.self {
			http.Error(w, "for authorities only", http.StatusForbidden)
			return
		}
		h(w, r, from)
	}
}

// peerOf returns the identity that the request's connection was authenticated with. TLS has verified that
// the peer holds the certificate's key, and package link that it is one Ed25519 certificate.
func peerOf(r *http.Request) (wire.ID, bool) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) != 1 {
		return wire.ID{}, false
	}
	key, ok := r.TLS.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok || len(key) != ed25519.PublicKeySize {
		return wire.ID{}, false
	}
	return wire.ID(key), true
}
