package proxy

import (
	"bytes"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"torproxy/proxy/circuit"
	"torproxy/wire"
	"torproxy/wire/link"
	"torproxy/wire/mux"
	"torproxy/wire/netdoc"
	"torproxy/wire/onion"
)

func anyExit([]*netdoc.Relay) bool { return true }

// noSpares is a Config whose pool has only what dials build.
var noSpares = Config{Spares: -1}

// TestIsolation checks that streams of one label share a circuit, and those of different labels never do,
// the empty one among them, also when all are asked for at once.
func TestIsolation(t *testing.T) {
	onBed(t, 4, Config{}, nil, func(b *bed) {
		labels := []string{"", "a", "b", "a\x00", "A"}
		var all sync.WaitGroup
		for range 10 {
			for _, l := range labels {
				all.Go(func() {
					if _, err := b.Dial(b.t.Context(), Request{Target: "site.test:80", Isolation: l}); err != nil {
						t.Errorf("%q: %v", l, err)
					}
				})
			}
		}
		all.Wait()
		carries := map[string]int{}
		for _, c := range b.Circuits() {
			if len(c.Streams) > 0 {
				carries[c.Isolation]++
				if len(c.Streams) != 10 {
					t.Errorf("a circuit of %q carries %d streams, want all 10", c.Isolation, len(c.Streams))
				}
			}
		}
		if len(carries) != len(labels) {
			t.Errorf("circuits carry %d labels, want %d: %v", len(carries), len(labels), carries)
		}
	})
}

// TestNewIdentity checks that a later stream shares no circuit with an earlier one, also if the earlier one
// had no circuit yet; that open streams stay; and that circuits go with their last stream.
func TestNewIdentity(t *testing.T) {
	onBed(t, 2, Config{}, nil, func(b *bed) {
		early := b.dial("a")
		first := b.circuitOf("a")
		asked := b.pool.labelled("a", "") // a dial that has got no further than this
		b.NewIdentity()
		<-time.After(time.Second) // the spares are there again
		late := b.dial("a")
		second := b.circuitOf("a")
		<-time.After(time.Second)
		if second == first {
			t.Error("the same circuit after NewIdentity")
		}
		overtaken, _ := b.pool.take(asked, "", anyExit)
		if overtaken == nil || overtaken.id == first || overtaken.id == second {
			b.t.Fatalf("the dial that was overtaken got circuit %+v; %s is the earlier one, %s the later", overtaken, first, second)
		}
		if h, _ := b.pool.take(b.pool.labelled("a", ""), "", anyExit); h.id != second {
			t.Errorf("a later stream uses circuit %s, want %s", h.id, second)
		}
		b.pool.release(overtaken)
		if _, err := early.Write([]byte("still here")); err != nil {
			t.Errorf("the earlier stream: %v", err)
		}
		early.Close()
		<-time.After(time.Second)
		for _, c := range b.Circuits() {
			if c.ID == first || c.ID == overtaken.id {
				t.Errorf("circuit %s is still %s", c.ID, c.State)
			}
		}
		late.Close()
	})
}

// TestLastBytes closes the last stream of a retired circuit with bytes on their way: they arrive, and the
// circuit goes only then.
func TestLastBytes(t *testing.T) {
	sent := bytes.Repeat([]byte("last bytes "), 20000)
	var got atomic.Pointer[[]byte] // when all has been read without an error
	sink := func(_ int, e *exit) {
		e.answer = func(st *mux.Stream) {
			defer st.Close()
			st.Connect()
			if b, err := io.ReadAll(st); err == nil {
				got.Store(&b)
			}
		}
	}
	onBed(t, 1, noSpares, sink, func(b *bed) {
		conn := b.dial("")
		b.NewIdentity()
		if _, err := conn.Write(sent); err != nil {
			t.Error(err)
		}
		conn.Close()
		<-time.After(time.Second)
		if b := got.Load(); b == nil || !bytes.Equal(*b, sent) {
			t.Error("not all arrived")
		}
		if n := len(b.Circuits()); n != 0 {
			t.Errorf("%d circuits are left", n)
		}
	})
}

// muted is a circuit's stream whose writes stop at some point.
type muted struct {
	*link.Stream
	from <-chan struct{} // closed: nothing is written any more
	end  <-chan struct{}
}

func (m muted) Write(p []byte) (int, error) {
	select {
	case <-m.from:
		<-m.end
		return 0, io.ErrClosedPipe
	default:
		return m.Stream.Write(p)
	}
}

// TestUnansweredEnd checks that an exit which answers nothing does not keep a retired circuit for ever.
func TestUnansweredEnd(t *testing.T) {
	var end chan struct{}
	onBed(t, 1, noSpares, func(_ int, e *exit) {
		mute := make(chan struct{})
		end = make(chan struct{})
		e.serve = func(s *link.Stream, keys *onion.HopKeys) { e.sessionOver(muted{s, mute, end}, keys) }
		e.answer = func(st *mux.Stream) {
			st.Connect()
			io.ReadFull(st, make([]byte, 4))
			close(mute)
		}
	}, func(b *bed) {
		defer close(end)
		conn := b.dial("")
		conn.Write([]byte("mute"))
		<-time.After(time.Second)
		b.NewIdentity()
		conn.Close()
		<-time.After(closeTimeout - time.Second)
		if len(b.Circuits()) != 1 {
			t.Error("the circuit has gone too early")
		}
		<-time.After(tendInterval + 2*time.Second)
		if len(b.Circuits()) != 0 {
			t.Error("the circuit is still there")
		}
	})
}

// TestManyStreams checks that a circuit's limit of streams makes another circuit, and no error.
func TestManyStreams(t *testing.T) {
	onBed(t, 1, noSpares, nil, func(b *bed) {
		for range wire.MaxStreams + 1 {
			b.dial("a")
		}
		var streams []int
		for _, c := range b.Circuits() {
			streams = append(streams, len(c.Streams))
		}
		if len(streams) != 2 || streams[0] != wire.MaxStreams || streams[1] != 1 {
			t.Errorf("the circuits carry %v streams, want %d and 1", streams, wire.MaxStreams)
		}
	})
}

// TestManyLabels uses ever new labels: the circuits that stand are bounded, the idlest go first, and one with a
// stream never does.
func TestManyLabels(t *testing.T) {
	onBed(t, 1, noSpares, nil, func(b *bed) {
		open := b.dial("open")
		carries := b.circuitOf("open")
		for i := range maxStanding + 10 {
			b.dial(strconv.Itoa(i)).Close()
		}
		<-time.After(time.Second)
		if n := len(b.Circuits()); n != maxStanding {
			t.Errorf("%d circuits stand, want %d", n, maxStanding)
		}
		built := b.creates()
		b.dial(strconv.Itoa(maxStanding + 9)).Close()
		b.dial("11").Close()
		if b.creates() != built {
			t.Error("circuits that were not the idlest are gone")
		}
		b.dial("10").Close()
		if b.creates() != built+1 {
			t.Error("the idlest circuit is still there")
		}
		b.dial("open")
		if b.circuitOf("open") != carries {
			t.Error("a circuit with a stream takes no more")
		}
		if _, err := open.Write([]byte("still here")); err != nil {
			t.Errorf("the open stream: %v", err)
		}
		if _, err := io.ReadFull(open, make([]byte, 10)); err != nil {
			t.Errorf("the open stream: %v", err)
		}
	})
}

// TestLifetimes checks when a circuit takes no new streams, and when a spare is replaced.
func TestLifetimes(t *testing.T) {
	onBed(t, 1, Config{Spares: 1}, nil, func(b *bed) {
		<-b.Ready()
		spare := b.Circuits()[0].ID
		<-time.After(spareLifetime + 2*tendInterval)
		if c := b.Circuits(); len(c) != 1 || c[0].ID == spare {
			t.Errorf("after %v the spares are %+v, want one new one", spareLifetime, c)
		}
		conn := b.dial("a")
		first := b.circuitOf("a")
		<-time.After(usedLifetime - time.Second)
		b.dial("a").Close()
		<-time.After(2 * time.Second)
		b.dial("a")
		if b.circuitOf("a") == first {
			t.Errorf("a stream after %v uses the same circuit", usedLifetime)
		}
		if _, err := conn.Write([]byte("still here")); err != nil {
			t.Errorf("the open stream: %v", err)
		}
		conn.Close()
		<-time.After(2 * tendInterval)
		for _, c := range b.Circuits() {
			if c.ID == first {
				t.Error("the circuit outlives its last stream")
			}
		}
	})
}

// TestManyDials checks that dials which want the same circuit wait for one, and those that do not, don't.
func TestManyDials(t *testing.T) {
	for name, test := range map[string]struct {
		label func(i int) string
		want  int64
	}{
		"one label":   {func(int) string { return "" }, 1},
		"many labels": {strconv.Itoa, 50},
	} {
		t.Run(name, func(t *testing.T) {
			onBed(t, 3, noSpares, nil, func(b *bed) {
				began := time.Now()
				var all sync.WaitGroup
				for i := range 50 {
					all.Go(func() { b.dial(test.label(i)) })
				}
				all.Wait()
				if n := b.creates(); n != test.want {
					t.Errorf("%d circuits were built, want %d", n, test.want)
				}
				if took := time.Since(began); took > time.Second {
					t.Errorf("took %v: the dials waited for one another", took)
				}
			})
		})
	}
}

// TestDroppedSpares checks that exits which accept circuits and drop them do not keep the proxy building.
func TestDroppedSpares(t *testing.T) {
	var good atomic.Bool
	drop := func(_ int, e *exit) {
		e.serve = func(s *link.Stream, keys *onion.HopKeys) {
			if good.Load() {
				e.session(s, keys)
			}
			<-time.After(time.Millisecond)
		}
	}
	onBed(t, 2, Config{}, drop, func(b *bed) {
		<-time.After(time.Minute)
		if n := b.creates(); n < 3 || n > 50 {
			t.Errorf("%d circuits were built in a minute", n)
		}
		good.Store(true)
		<-time.After(2 * retryMax)
		if n := b.Stats().Spares; n != defaultSpares {
			t.Errorf("%d spares stand when the exits serve again, want %d", n, defaultSpares)
		}
	})
}

// TestLate checks that a circuit which stands when the pool is closed already is closed too.
func TestLate(t *testing.T) {
	onBed(t, 1, noSpares, nil, func(b *bed) {
		relays := []*netdoc.Relay{&b.Consensus().Relays[0]}
		built, err := circuit.Build(b.t.Context(), b.node, relays)
		if err != nil {
			b.t.Fatal(err)
		}
		attempt := b.pool.begin(&path{relays: relays}, nil)
		b.pool.close()
		b.pool.add(attempt, built, nil, b.runCircuit)
		<-built.Done()
		if n := len(b.Circuits()); n != 0 {
			t.Errorf("the pool has %d circuits", n)
		}
	})
}
