package dirauth

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"torproxy/wire/directory"
	"torproxy/wire/netdoc"
)

// ask sends a request to authority 0 of a parliament, as whoever holds the key; nil: a client.
func (p *parliament) ask(who ed25519.PrivateKey, method, path string, body []byte) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, path, bytes.NewReader(body))
	req.TLS = &tls.ConnectionState{}
	if who != nil {
		req.TLS.PeerCertificates = []*x509.Certificate{{PublicKey: who.Public().(ed25519.PublicKey)}}
	}
	w := httptest.NewRecorder()
	p.voters[0].handler().ServeHTTP(w, req)
	return w
}

func TestServer(t *testing.T) { synctest.Test(t, testServer) }

func testServer(t *testing.T) {
	p := newParliament(t, 4, func(p *netdoc.Params) { p.Round = netdoc.Duration(time.Hour) })
	d := describeNow(t, 1)
	present := p.voters[0].present(time.Now())
	at := func(k int) []byte {
		return p.voteWith(t, 1, func(v *netdoc.Vote) { v.ValidAfter = present.Add(time.Duration(k) * time.Hour).UnixMilli() }).Raw()
	}
	vote := at(0)
	votePath := directory.VotePath + "/" + netdoc.DigestOf(vote).String()
	descriptorPath := directory.DescriptorPath + "/" + d.Digest().String()
	other, self := p.keys[1], p.keys[0]
	for _, tt := range []struct {
		name   string
		who    ed25519.PrivateKey
		method string
		path   string
		body   []byte
		status int
		answer []byte // nil: any
	}{
		{"no consensus yet", nil, "GET", directory.ConsensusPath, nil, 503, nil},
		{"unknown path", nil, "GET", "/torproxy/1/secrets", nil, 404, nil},
		{"descriptor before it is known", nil, "GET", descriptorPath, nil, 404, nil},
		{"registration", nil, "POST", directory.DescriptorPath, d.Raw(), 200, []byte(`{"result":"added"}` + "\n")},
		{"registration again", nil, "POST", directory.DescriptorPath, d.Raw(), 200, []byte(`{"result":"already known"}` + "\n")},
		{"registration of nothing", nil, "POST", directory.DescriptorPath, nil, 200, nil},
		{"descriptor", nil, "GET", descriptorPath, nil, 200, d.Raw()},
		{"descriptor by something else", nil, "GET", directory.DescriptorPath + "/relay1", nil, 400, nil},
		{"vote before it is known", other, "GET", votePath, nil, 404, nil},
		{"vote", other, "POST", directory.VotePath, vote, 200, nil},
		{"vote again", other, "POST", directory.VotePath, vote, 200, nil},
		{"vote from a client", nil, "POST", directory.VotePath, vote, 403, nil},
		{"vote from itself", self, "POST", directory.VotePath, vote, 403, nil},
		{"next vote", other, "POST", directory.VotePath, at(1), 200, nil},
		{"vote after next: to be tried again", other, "POST", directory.VotePath, at(2), 503, nil},
		{"old vote", other, "POST", directory.VotePath, at(-2), 409, nil},
		{"vote by digest", other, "GET", votePath, nil, 200, vote},
		{"vote by digest, for a client", nil, "GET", votePath, nil, 403, nil},
		{"vote by something else", other, "GET", directory.VotePath + "/1", nil, 400, nil},
		{"garbage", other, "POST", directory.EchoPath, []byte("garbage"), 400, nil},
		{"wrong method", other, "PUT", directory.EchoPath, nil, 405, nil},
	} {
		got := p.ask(tt.who, tt.method, tt.path, tt.body)
		if got.Code != tt.status || tt.answer != nil && !bytes.Equal(got.Body.Bytes(), tt.answer) {
			t.Errorf("%s: %d %q, want %d", tt.name, got.Code, got.Body, tt.status)
		}
	}
}

// More registrations at a time than there is room for are sent away.
func TestAtMost(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	h := atMost(2, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		entered <- struct{}{}
		<-leave
	}))
	serve := func() int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", "/", nil))
		return w.Code
	}
	inside := make(chan int)
	for range 2 {
		go func() { inside <- serve() }()
		<-entered
	}
	if code := serve(); code != http.StatusServiceUnavailable {
		t.Errorf("the third gets %d", code)
	}
	close(leave)
	for range 2 {
		if code := <-inside; code != http.StatusOK {
			t.Errorf("one inside gets %d", code)
		}
	}
	go func() { inside <- serve() }()
	<-entered
	if code := <-inside; code != http.StatusOK {
		t.Errorf("the next one gets %d", code)
	}
}
