package dirauth

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"torproxy/wire"
	"torproxy/wire/link"
	"torproxy/wire/netdoc"
)

// TestEchoOverUDP measures a relay on loopback, and one that returns other bytes than it got.
func TestEchoOverUDP(t *testing.T) {
	r := startResponder(t, 1)
	d, err := netdoc.ParseDescriptor(r.descriptor)
	if err != nil {
		t.Fatal(err)
	}
	conn, _ := listen(t)
	node, err := link.NewNode(link.Config{Conn: conn, Identity: ed25519.NewKeyFromSeed(make([]byte, 32))})
	if err != nil {
		t.Fatal(err)
	}
	runUntilCleanup(t, node.Run, conn)
	try := echo(node)
	for _, size := range []int{leastTransfer, mostTransfer} {
		value, err := try(t.Context(), d, size)
		if err != nil || value == 0 || value > netdoc.MaxBandwidth {
			t.Errorf("%d bytes on loopback: %d bytes per second, %v", size, value, err)
		}
	}
	r.spoil.Store(true)
	if _, err := try(t.Context(), d, leastTransfer); err == nil {
		t.Error("a relay was measured that returns something else")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := try(ctx, d, leastTransfer); err == nil {
		t.Error("measured after the end")
	}
}

// pipeline returns what it was sent, after a while and so many bytes per second.
type pipeline struct {
	delay time.Duration
	speed int
	data  chan []byte
	rest  []byte
	from  time.Time
	gave  int
}

func (p *pipeline) Write(b []byte) (int, error) {
	p.from = time.Now().Add(p.delay)
	p.data <- b
	return len(b), nil
}

func (p *pipeline) Read(b []byte) (int, error) {
	if p.rest == nil {
		p.rest = <-p.data
	}
	n := min(len(b), 1000, len(p.rest))
	p.gave += n
	<-time.After(time.Until(p.from.Add(time.Duration(p.gave) * time.Second / time.Duration(p.speed))))
	copy(b, p.rest[:n])
	p.rest = p.rest[n:]
	return n, nil
}

// hoarder keeps what it was sent until it has had time to get all of it over a slow line, and then returns it
// at once.
type hoarder struct {
	slow time.Duration
	data chan []byte
	rest []byte
}

func (h *hoarder) Write(b []byte) (int, error) { h.data <- b; return len(b), nil }

func (h *hoarder) Read(b []byte) (int, error) {
	if h.rest == nil {
		h.rest = <-h.data
		<-time.After(h.slow)
	}
	n := copy(b, h.rest)
	h.rest = h.rest[n:]
	return n, nil
}

// A relay that holds the first quarter back gains no more than the factor that a slow start is allowed.
func TestTimeEchoHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, line = 64 << 10, 16 << 10 // bytes, and bytes per second
		got, err := timeEcho(&hoarder{slow: size / line * time.Second, data: make(chan []byte, 1)}, size)
		if err != nil || got > wholeFactor*line {
			t.Errorf("a line of %d bytes per second was measured as %d, %v", line, got, err)
		}
	})
}

// The value is what the relay carries, whatever the way there takes, up to what the whole exchange allows.
func TestTimeEcho(t *testing.T) {
	for _, speed := range []int{10_000, 1_000_000, 20_000_000} {
		for _, delay := range []time.Duration{0, 50 * time.Millisecond, 3 * time.Second} {
			synctest.Test(t, func(t *testing.T) {
				const size = 1 << 20
				got, err := timeEcho(&pipeline{speed: speed, delay: delay, data: make(chan []byte, 1)}, size)
				whole := delay.Seconds() + float64(size)/float64(speed)
				want := min(float64(speed), wholeFactor*size/whole)
				if err != nil || float64(got) < want*0.99 || float64(got) > want*1.01 {
					t.Errorf("%d bytes per second after %v: measured %d, want %.0f, %v", speed, delay, got, want, err)
				}
			})
		}
	}
	if _, err := timeEcho(struct {
		io.Reader
		io.Writer
	}{errReader{}, io.Discard}, 1000); err == nil {
		t.Error("measured without an answer")
	}
	if got := bandwidthOf(1<<40, 0); got != netdoc.MaxBandwidth {
		t.Errorf("in no time: %d", got)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// course is relays that are measured in virtual time.
type course struct {
	*meter
	mu     sync.Mutex
	speeds map[wire.ID]uint64
	tries  []attempt
	atOnce int
	most   int
}

type attempt struct {
	at   time.Time
	id   wire.ID
	size int
}

func (c *course) tryOne(_ context.Context, d *netdoc.Descriptor, size int) (uint64, error) {
	c.mu.Lock()
	c.tries = append(c.tries, attempt{time.Now(), d.ID, size})
	c.atOnce++
	c.most = max(c.most, c.atOnce)
	speed := c.speeds[d.ID]
	c.mu.Unlock()
	<-time.After(50 * time.Millisecond)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.atOnce--
	if speed == 0 {
		return 0, errors.New("does not let itself be measured")
	}
	return speed, nil
}

// onCourse runs f while n relays are measured, all of which run, the first being the slowest.
func onCourse(t *testing.T, round time.Duration, n int, f func(c *course)) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(4)
		w.Params.Round = netdoc.Duration(round)
		log := slog.New(slog.DiscardHandler)
		c := &course{speeds: map[wire.ID]uint64{}}
		c.meter = &meter{roster: newRoster(w.Network, NewMemoryStore(), &gate{}, log), log: log, try: c.tryOne}
		for i := range n {
			d := describeNow(t, i)
			c.speeds[d.ID] = uint64(i+1) << 17
			c.roster.admit(d, time.Now())
			c.roster.tested(d, true, time.Now())
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			c.run(ctx)
		}()
		f(c)
		cancel()
		<-ended
	})
}

// In a private network of twelve relays measuring stays out of the way: none before a round has passed,
// small transfers, two at a time, and little in any round; and every relay's value is right in the end.
func TestMeasuringIsModest(t *testing.T) {
	const round = 5 * time.Second
	onCourse(t, round, 12, func(c *course) {
		began := time.Now()
		await(began.Add(5 * time.Minute))
		c.mu.Lock()
		defer c.mu.Unlock()
		byRound := map[time.Duration]int{}
		each := map[wire.ID]int{}
		for _, a := range c.tries {
			if a.at.Sub(began) < round {
				t.Errorf("measured after %v", a.at.Sub(began))
			}
			if a.size < leastTransfer || a.size > measureRate*5/shareOfRound {
				t.Errorf("a transfer of %d bytes", a.size)
			}
			byRound[a.at.Sub(began)/round] += a.size
			each[a.id]++
		}
		for k, sent := range byRound {
			if sent > 2*measureRate*5 {
				t.Errorf("%d bytes in round %d", sent, k)
			}
		}
		if c.most > measuresAtOnce {
			t.Errorf("%d at a time", c.most)
		}
		for id, n := range each {
			if n < 7 || n > 14 {
				t.Errorf("relay %s was measured %d times in five minutes", id.Short(), n)
			}
		}
		for _, e := range c.roster.entries(time.Now()) {
			if e.Measured != c.speeds[e.ID] {
				t.Errorf("relay %s has %d, want %d", e.ID.Short(), e.Measured, c.speeds[e.ID])
			}
		}
	})
}

// A network of thousands with rounds of an hour is gone through in some hours, within the budget.
func TestMeasuringAtScale(t *testing.T) {
	const relays = 500
	onCourse(t, time.Hour, relays, func(c *course) {
		began := time.Now()
		await(began.Add(24 * time.Hour))
		c.mu.Lock()
		defer c.mu.Unlock()
		sent, each := 0, map[wire.ID]int{}
		for _, a := range c.tries {
			sent += a.size
			each[a.id]++
		}
		if len(each) != relays {
			t.Errorf("%d relays of %d were measured in a day", len(each), relays)
		}
		if limit := 24*3600*measureRate + mostTransfer; sent > limit {
			t.Errorf("%d bytes in a day, the limit is %d", sent, limit)
		}
	})
}

// One outlier moves nothing, a relay that gets slower is found out, and one that does not let itself be
// measured any more loses its name.
func TestValues(t *testing.T) {
	r := newTestRoster(nil)
	d := describe(t, 1)
	r.admit(d, validAfter)
	m := r.members[d.ID]
	for _, tt := range []struct{ value, want uint64 }{
		{100, 100}, {110, 100}, {9000, 110}, {105, 105}, {107, 107}, {106, 107},
		{10, 106}, {11, 105}, {12, 12}, {0, 11}, {0, 11}, {0, 11}, {0, 12}, {0, 0}, {0, 0}, {50, 50},
	} {
		r.measured(d, tt.value, validAfter)
		if got := m.bandwidth.median(); got != tt.want {
			t.Errorf("after %d: %d, want %d (of %v)", tt.value, got, tt.want, m.bandwidth.values)
		}
	}
	r.measured(describe(t, 2), 5, validAfter) // nobody knows it
}

// What was learnt of a relay is there after a restart; the time in which the authority was down counts for
// nothing.
func TestRecordsRestore(t *testing.T) {
	before := newTestRoster(nil)
	up, down, lapsed := describe(t, 1), describe(t, 2), describe(t, 3)
	for _, d := range []*netdoc.Descriptor{up, down, lapsed} {
		before.admit(d, validAfter)
		before.tested(d, d != down, validAfter)
		before.tested(d, d != down, validAfter.Add(3*time.Hour))
		before.measured(d, 1000, validAfter.Add(2*time.Hour))
	}
	if err := before.save(); err != nil {
		t.Fatal(err)
	}
	now := validAfter.Add(5 * time.Hour) // two of them nobody looked
	after := newRoster(before.network, before.store, before.gate, before.log)
	if err := after.restore(now); err != nil {
		t.Fatal(err)
	}
	after.tested(up, true, now)
	after.tested(down, false, now)
	after.tested(lapsed, false, now)
	for d, want := range map[*netdoc.Descriptor]time.Duration{up: 3 * time.Hour, down: 3 * time.Hour, lapsed: 0} {
		m := after.members[d.ID]
		if got := now.Sub(m.since); got != want || !m.added.Equal(time.UnixMilli(validAfter.UnixMilli())) || m.bandwidth.median() != 1000 {
			t.Errorf("%s: %v so, want %v; known since %v, %d bytes per second", d.Nickname, got, want, m.added, m.bandwidth.median())
		}
	}
	if after.members[up.ID].silent() || len(after.past) != 0 {
		t.Error("something of the past is left")
	}
	// Its descriptors are too old after a day, and gone; what was learnt is not, until the relays return.
	late := newRoster(before.network, before.store, before.gate, before.log)
	if err := late.restore(validAfter.Add(48 * time.Hour)); err != nil {
		t.Fatal(err)
	}
	fresh := describe(t, 1, newer(48*time.Hour), func(d *netdoc.Descriptor) { d.OnionKeys[0].Until += 48 * time.Hour.Milliseconds() })
	late.admit(fresh, validAfter.Add(48*time.Hour))
	if m := late.members[fresh.ID]; m == nil || m.bandwidth.median() != 1000 || len(late.past) != 2 {
		t.Error("what was learnt of the relay is lost")
	}
	if kept, _ := late.store.Records(); len(kept) != 0 {
		t.Errorf("%d records of relays that are gone are stored", len(kept))
	}
}

// Guard asks for more than Stable: to be known for long. A young network has guards all the same.
func TestGuards(t *testing.T) {
	r := newTestRoster(func(p *netdoc.Params) { p.Round = netdoc.Duration(time.Hour) })
	now := validAfter
	guards := func() (guards []int) {
		r.mu.Lock()
		defer r.mu.Unlock()
		b := r.barLocked(now)
		for i := range 6 {
			if m := r.members[relayID(i)]; m != nil && b.flags(m, now).Has(netdoc.Guard) {
				guards = append(guards, i)
			}
		}
		return guards
	}
	join := func(i int) {
		d := describe(t, i)
		r.admit(d, now)
		r.tested(d, true, now)
	}
	for i := range 4 {
		join(i)
	}
	if got := guards(); !slices.Equal(got, []int{0, 1, 2, 3}) {
		t.Errorf("in the first hour: %v", got)
	}
	now = now.Add(10 * time.Hour)
	join(4)
	if got := guards(); !slices.Equal(got, []int{0, 1, 2, 3}) {
		t.Errorf("when one came later: %v", got)
	}
	// An old relay that was restarted is known, but not stable; the newcomer will be both in the end.
	r.tested(describe(t, 0), false, now)
	r.tested(describe(t, 0), true, now)
	if got := guards(); !slices.Equal(got, []int{1, 2, 3}) {
		t.Errorf("after a restart: %v", got)
	}
	now = now.Add(6 * 24 * time.Hour)
	if got := guards(); !slices.Equal(got, []int{0, 1, 2, 3}) {
		t.Errorf("after six days: %v", got)
	}
	now = now.Add(3 * 24 * time.Hour)
	if got := guards(); !slices.Equal(got, []int{0, 1, 2, 3, 4}) {
		t.Errorf("after nine days: %v", got)
	}
	// Measured, one is slower than 100 KiB/s and than the others, which are many.
	for i := 5; i < 10; i++ {
		join(i)
	}
	for i := range 10 {
		r.measured(describe(t, i), uint64(1000+(9-i)*1_000_000), now)
	}
	for _, e := range r.entries(now) {
		if e.Flags.Has(netdoc.Fast) != (e.ID != relayID(9)) {
			t.Errorf("%d bytes per second: %v", e.Measured, e.Flags)
		}
	}
}
