package dirauth

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"torproxy/wire"
	"torproxy/wire/directory"
	"torproxy/wire/link"
	"torproxy/wire/mux"
	"torproxy/wire/netdoc"
	"torproxy/wire/onion"
)

// Tests over loopback UDP: nothing in them but relays is made up.

// listen opens a socket on loopback.
func listen(t *testing.T) (net.PacketConn, netip.AddrPort) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return conn, conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// city is a network of authorities that run.
type city struct {
	*town
	authorities []*Authority
}

// startCity runs n authorities with rounds of 250 ms until the test ends.
func startCity(t *testing.T, n int) *city {
	t.Helper()
	c := &city{town: newTown(n)}
	c.Params.Round = netdoc.Duration(time.Second)
	c.Params.Start = time.Now().UnixMilli()
	c.Params.InitialRound = netdoc.Duration(250 * time.Millisecond)
	c.Params.InitialRounds = 1000
	var conns []net.PacketConn
	for i := range n {
		conn, addr := listen(t)
		conns = append(conns, conn)
		c.Authorities[i].Addresses = []netip.AddrPort{addr}
	}
	for i := range n {
		a, err := New(Config{Network: c.Network, Identity: c.keys[i], Conn: conns[i]})
		if err != nil {
			t.Fatal(err)
		}
		c.authorities = append(c.authorities, a)
		runUntilCleanup(t, a.Run, conns[i])
	}
	return c
}

// runUntilCleanup runs something until the test ends, or the returned function is called, and then closes
// its socket.
func runUntilCleanup(t *testing.T, run func(context.Context) error, conn net.PacketConn) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		conn.Close()
	})
	t.Cleanup(stop)
	return stop
}

// responder is a relay that answers handshakes, and nothing else.
type responder struct {
	describe   func(at ...netip.AddrPort) []byte // its descriptor of this moment
	descriptor []byte
	addr       netip.AddrPort
	id         wire.ID
	tests      atomic.Int32 // handshakes answered
	spoil      atomic.Bool  // what it echoes
	stop       func()
}

func startResponder(t *testing.T, i int) *responder {
	t.Helper()
	conn, addr := listen(t)
	private, err := onion.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	r := &responder{addr: addr, id: wire.PublicID(key("relay", i))}
	r.describe = func(at ...netip.AddrPort) []byte {
		return describe(t, i, func(d *netdoc.Descriptor) {
			d.Addresses = at
			d.Published = time.Now().UnixMilli()
			d.OnionKeys = []netdoc.OnionKey{{Public: private.Public(), From: d.Published, Until: d.Published + time.Hour.Milliseconds()}}
		}).Raw()
	}
	r.descriptor = r.describe(addr)
	ring := onion.NewKeyring(r.id, private, 1000)
	node, err := link.NewNode(link.Config{Conn: conn, Identity: key("relay", i), Circuit: func(_ context.Context, s *link.Stream) {
		packet := make([]byte, wire.CreateSize)
		if _, err := io.ReadFull(s, packet); err != nil {
			return
		}
		peeled, err := ring.Peel(packet, time.Now())
		if err != nil {
			t.Errorf("peel: %v", err)
			return
		}
		created, keys, err := peeled.Answer(wire.StatusReady, nil)
		if err != nil {
			t.Errorf("answer: %v", err)
			return
		}
		if _, err := s.Write(created); err == nil {
			r.tests.Add(1)
			r.echo(s, keys) // until the authority closes the link
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	r.stop = runUntilCleanup(t, node.Run, conn)
	return r
}

// echo serves the circuit's streams as the last hop, changed by spoil if that is set.
func (r *responder) echo(s *link.Stream, keys *onion.HopKeys) {
	var streams sync.WaitGroup
	defer streams.Wait()
	session := mux.NewSession(mux.Config{Accept: func(st *mux.Stream) {
		streams.Go(func() {
			defer st.Close()
			st.Connect()
			st.ReadFrom(reader(func(p []byte) (int, error) {
				n, err := st.Read(p)
				if n > 0 && r.spoil.Load() {
					p[0]++
				}
				return n, err
			}))
		})
	}})
	session.Run(s, &lastHop{onion.NewLayer(&keys.Forward, wire.CellSize), onion.NewLayer(&keys.Backward, wire.CellSize)})
}

type reader func([]byte) (int, error)

func (r reader) Read(p []byte) (int, error) { return r(p) }

// lastHop is the last hop's end of the onion encryption.
type lastHop struct{ outward, inward *onion.Layer }

func (l *lastHop) Open(cell []byte) bool { return l.outward.Recognise(cell) }
func (l *lastHop) Seal(cell []byte)      { l.inward.Originate(cell) }

// startClient returns a client of directories: an anonymous one if identity is nil.
func startClient(t *testing.T, identity ed25519.PrivateKey) *directory.Client {
	t.Helper()
	conn, _ := listen(t)
	node, err := link.NewNode(link.Config{Conn: conn, Identity: identity})
	if err != nil {
		t.Fatal(err)
	}
	client := directory.NewClient(node)
	runUntilCleanup(t, node.Run, conn)
	t.Cleanup(client.Close)
	return client
}

// register posts a descriptor to an authority.
func (c *city) register(t *testing.T, client *directory.Client, i int, descriptor []byte) directory.Registration {
	t.Helper()
	answer, err := client.Post(t.Context(), directory.PeerOf(c.Authorities[i]), directory.DescriptorPath, descriptor, 4096)
	if err != nil {
		t.Fatal(err)
	}
	var r directory.Registration
	if err := json.Unmarshal(answer, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// until waits for a consensus at every authority that is as wanted, and checks that they never differ.
func (c *city) until(t *testing.T, what string, want func(*netdoc.Consensus) bool) {
	t.Helper()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	digests := map[int64]netdoc.Digest{}
	for i, a := range c.authorities {
		for {
			changed := a.follower.Changed()
			consensus := a.Consensus()
			if consensus != nil {
				if d, seen := digests[consensus.ValidAfter]; seen && d != consensus.Digest() {
					t.Fatal("two documents for one round")
				}
				digests[consensus.ValidAfter] = consensus.Digest()
				if want(consensus) {
					break
				}
			}
			select {
			case <-changed:
			case <-limit.C:
				t.Fatalf("authority %d has no consensus with %s", i, what)
			}
		}
	}
}

func TestAuthoritiesOverUDP(t *testing.T) {
	c := startCity(t, 4)
	client := startClient(t, nil)
	var relays []*responder
	for i := range 3 {
		relays = append(relays, startResponder(t, i))
	}
	for i := range c.Authorities {
		for _, r := range relays {
			// Authorities pass descriptors on to one another: a later one may know the relay already.
			if got := c.register(t, client, i, r.descriptor); got.Result != directory.Added && (i == 0 || got.Result != directory.Known) {
				t.Errorf("first registration with authority %d: %v", i, got)
			}
			if got := c.register(t, client, i, r.descriptor); got.Result != directory.Known {
				t.Errorf("second registration: %v", got)
			}
		}
		if got := c.register(t, client, i, []byte("garbage")); got.Result != directory.Refused || got.Reason == "" {
			t.Errorf("registration of garbage: %v", got)
		}
	}
	c.until(t, "three relays", func(c *netdoc.Consensus) bool { return len(c.Relays) == 3 })
	for i, r := range relays {
		if n := r.tests.Load(); n < 4 {
			t.Errorf("relay %d was tested %d times, by four authorities", i, n)
		}
	}
	relays[2].stop()
	c.until(t, "two relays", func(c *netdoc.Consensus) bool {
		_, in := c.Relay(relays[2].id)
		return len(c.Relays) == 2 && !in
	})
	c.checkServed(t, client, relays[0])
	for i, a := range c.authorities {
		c.awaitRunning(t, i, 2)
		s := a.Stats()
		if s.Answered < 3 || s.Consensuses == 0 || s.Heard[WordVote] == 0 || s.Said[WordSignature] == 0 || s.Registrations[directory.Refused] != 1 {
			t.Errorf("authority %d: %+v", i, s)
		}
	}
}

// awaitRunning waits until an authority has found out by itself how many relays run: the others may have voted
// one out before.
func (c *city) awaitRunning(t *testing.T, i, want int) {
	t.Helper()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	for a := c.authorities[i]; a.Stats().Now.Running != want; {
		select {
		case <-a.follower.Changed(): // round by round
		case <-limit.C:
			t.Fatalf("authority %d: %+v", i, a.Stats().Now)
		}
	}
}

// checkServed fetches what an authority serves to everybody.
func (c *city) checkServed(t *testing.T, client *directory.Client, r *responder) {
	t.Helper()
	peer := directory.PeerOf(c.Authorities[0])
	raw, etag, err := client.Fetch(t.Context(), peer, directory.ConsensusPath, "", netdoc.MaxConsensus)
	if err != nil {
		t.Fatal(err)
	}
	consensus, err := netdoc.ParseConsensus(raw, c.Network)
	if err != nil {
		t.Fatal(err)
	}
	if want := `"` + consensus.Digest().String() + `"`; etag != want {
		t.Errorf("etag %s, want %s", etag, want)
	}
	entry, ok := consensus.Relay(r.id)
	if !ok {
		t.Fatal("the relay is not in")
	}
	raw, _, err = client.Fetch(t.Context(), peer, directory.DescriptorPath+"/"+entry.Descriptor.String(), "", netdoc.MaxDescriptor)
	if err != nil || netdoc.DigestOf(raw) != entry.Descriptor {
		t.Errorf("descriptor by digest: %v", err)
	}
}

// A relay that claims another address is not listed because of a link that leads to its old one.
func TestClaimedAddressIsTested(t *testing.T) {
	c := startCity(t, 1)
	client := startClient(t, nil)
	r := startResponder(t, 1)
	c.register(t, client, 0, r.descriptor)
	c.until(t, "the relay", func(c *netdoc.Consensus) bool { return len(c.Relays) == 1 })
	conn, nobody := listen(t)
	defer conn.Close()
	if got := c.register(t, client, 0, r.describe(nobody)); got.Result != directory.Known {
		t.Fatal(got)
	}
	c.until(t, "no relay", func(c *netdoc.Consensus) bool { return len(c.Relays) == 0 })
	if running, known := c.authorities[0].Relays(); running != 0 || known != 1 {
		t.Errorf("%d relays run of %d known", running, known)
	}
}

// A relay runs if it answers at every address that it advertises: clients pick any.
func TestEveryAddressIsTested(t *testing.T) {
	c := startCity(t, 1)
	client := startClient(t, nil)
	half, whole := startResponder(t, 1), startResponder(t, 2)
	conn, nobody := listen(t)
	defer conn.Close()
	c.register(t, client, 0, half.describe(half.addr, nobody))
	c.register(t, client, 0, whole.descriptor)
	c.until(t, "the one that answers everywhere", func(c *netdoc.Consensus) bool { return len(c.Relays) == 1 })
	if consensus := c.authorities[0].Consensus(); consensus.Relays[0].ID != whole.id {
		t.Error("the one that does not answer everywhere is in")
	}
	if half.tests.Load() == 0 {
		t.Error("its other address was not tested")
	}
	c.register(t, client, 0, half.describe(half.addr))
	c.until(t, "both", func(c *netdoc.Consensus) bool { return len(c.Relays) == 2 })
}

// Votes, echoes and signatures are taken from authorities only, each for its own.
func TestOnlyAuthoritiesVote(t *testing.T) {
	c := startCity(t, 4)
	peer := directory.PeerOf(c.Authorities[0])
	vote := c.voteWith(t, 1, func(v *netdoc.Vote) {
		v.ValidAfter = c.authorities[0].voter.present(time.Now().Add(time.Second)).UnixMilli()
	}).Raw()
	for _, tt := range []struct {
		name string
		key  ed25519.PrivateKey
		path string
		body []byte
		want int
	}{
		{"a client", nil, directory.VotePath, vote, http.StatusForbidden},
		{"a stranger", key("stranger", 0), directory.VotePath, vote, http.StatusForbidden},
		{"another authority", c.keys[2], directory.VotePath, vote, http.StatusForbidden},
		{"the authority itself, garbage", c.keys[1], directory.EchoPath, []byte("garbage"), http.StatusBadRequest},
		{"a vote as a signature", c.keys[1], directory.SignaturePath, vote, http.StatusBadRequest},
		{"an old vote", c.keys[1], directory.VotePath, c.vote(t, 1).Raw(), http.StatusConflict},
	} {
		_, err := startClient(t, tt.key).Post(t.Context(), peer, tt.path, tt.body, 4096)
		if refusal, ok := errors.AsType[*directory.StatusError](err); !ok || refusal.Code != tt.want {
			t.Errorf("%s: %v, want status %d", tt.name, err, tt.want)
		}
	}
}

func TestConfig(t *testing.T) {
	c := newTown(4)
	conn, _ := listen(t)
	defer conn.Close()
	list := filepath.Join(t.TempDir(), "list")
	write(t, list, "garbage")
	for name, cfg := range map[string]Config{
		"a bad list":      {Network: c.Network, Identity: c.keys[0], Conn: conn, Rejections: list},
		"another":         {Network: c.Network, Identity: c.keys[0], Conn: conn, Allow: list},
		"no list":         {Network: c.Network, Identity: c.keys[0], Conn: conn, Allow: list + "x"},
		"no network":      {Identity: c.keys[0], Conn: conn},
		"a bad network":   {Network: &netdoc.Network{}, Identity: c.keys[0], Conn: conn},
		"no key":          {Network: c.Network, Conn: conn},
		"a stranger":      {Network: c.Network, Identity: key("stranger", 0), Conn: conn},
		"no socket":       {Network: c.Network, Identity: c.keys[0]},
		"a broken store":  {Network: c.Network, Identity: c.keys[0], Conn: conn, Store: broken{NewMemoryStore()}},
		"a broken store2": {Network: c.Network, Identity: c.keys[0], Conn: conn, Store: broken2{NewMemoryStore()}},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Stores of which something cannot be read.
type (
	broken  struct{ Store }
	broken2 struct{ Store }
)

func (broken) Descriptors() ([][]byte, error) { return nil, errors.New("disk gone") }
func (broken2) Consensus() ([]byte, error)    { return nil, errors.New("disk gone") }
