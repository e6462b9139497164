package directory

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"torproxy/wire/link"
)

// line is this machine's line to all servers, in virtual time: those that deliver share it.
type line struct {
	bytesPerSecond int

	mu      sync.Mutex
	sharing int
}

// download takes size bytes over the line; it fails with the context's error.
func (l *line) download(ctx context.Context, size int) error {
	l.share(1)
	defer l.share(-1)
	const tick = 50 * time.Millisecond
	for came := 0; came < size; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(tick):
		}
		n := l.bytesPerSecond / int(time.Second/tick) / l.share(0)
		accountOf(ctx).came(n)
		came += n
	}
	return nil
}

func (l *line) share(by int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sharing += by
	return l.sharing
}

// TestPollOnASlowLine: on a line that takes twenty seconds for a consensus it arrives in twenty seconds: no
// other server takes its share while one delivers. On one that takes longer than a poll it does not, and
// the problem says why.
func TestPollOnASlowLine(t *testing.T) {
	n := testNetwork(4, time.Hour)
	serve := serving(t, n, 0)
	const size = 1 << 20
	for name, test := range map[string]struct {
		bytesPerSecond int
		arrives        time.Duration
		asked          int
	}{
		"fourteen seconds": {size / 14, 14 * time.Second, 1},
		"twenty seconds":   {size / 20, 25 * time.Second, 2}, // at 15 s a second one is asked, and takes half
		"forty seconds":    {size / 40, 0, 4},
	} {
		t.Run(name, func(t *testing.T) {
			l := &line{bytesPerSecond: test.bytesPerSecond}
			answer := func(ctx context.Context, i int, tag string) ([]byte, error) {
				if err := l.download(ctx, size); err != nil {
					return nil, err
				}
				return serve(ctx, i, tag)
			}
			follow(t, n, answer, func(f *Follower, a *authorities, _ *journal) {
				pass(test.arrives - time.Second)
				if test.arrives == 0 {
					pass(requestTimeout + 2*time.Second)
					if problem := f.Problem(); !strings.Contains(problem.Error(), "line may be too slow") {
						t.Errorf("problem %q", problem)
					}
				} else if pass(2 * time.Second); f.Current() == nil {
					t.Errorf("has not arrived: %v", f.Problem())
				}
				if asked := a.take(); len(asked) < test.asked || test.arrives > 0 && len(asked) != test.asked {
					t.Errorf("asked %v, want %d authorities", asked, test.asked)
				}
			})
		})
	}
}

// TestPollAsksOthers beside a server that sends something, but is no help: when, says the table.
func TestPollAsksOthers(t *testing.T) {
	trickle := func(n int, every time.Duration, stop time.Duration) func(ctx context.Context) error {
		return func(ctx context.Context) error {
			began := time.Now()
			for {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(every):
				}
				if stop == 0 || time.Since(began) < stop {
					accountOf(ctx).came(n)
				}
			}
		}
	}
	for name, test := range map[string]struct {
		first func(ctx context.Context) error
		next  time.Duration // when the second is asked
	}{
		"silent":              {trickle(0, time.Minute, 0), hedge},
		"a byte now and then": {trickle(1, 100*time.Millisecond, 0), hedge},
		"less than the pace":  {trickle(leastPace/20, 100*time.Millisecond, 0), hedge},
		"stops":               {trickle(10000, 100*time.Millisecond, 3*time.Second), 3*time.Second + hedge},
		"delivers for ever":   {trickle(10000, 100*time.Millisecond, 0), authorityAlone},
		"delivers and then fails": {func(ctx context.Context) error {
			accountOf(ctx).came(10000)
			<-time.After(2 * time.Second / 5)
			return errors.New("cut")
		}, 2 * time.Second / 5},
	} {
		t.Run(name, func(t *testing.T) {
			n := testNetwork(4, time.Hour)
			serve := serving(t, n, 0)
			var others atomic.Bool
			answer := func(ctx context.Context, i int, tag string) ([]byte, error) {
				if !others.Swap(true) {
					return nil, test.first(ctx)
				}
				return serve(ctx, i, tag)
			}
			follow(t, n, answer, func(f *Follower, a *authorities, _ *journal) {
				pass(authorityAlone + time.Second)
				asked := a.take()
				if len(asked) != 2 || asked[1].at < test.next || asked[1].at > test.next+hedge || f.Current() == nil {
					t.Errorf("asked %v, want the second at %v; %v", asked, test.next, f.Problem())
				}
			})
		})
	}
}

// TestPollIsNotHeldUpByMirrors: three mirrors that deliver for ever take fifteen seconds, not a poll's time.
func TestPollIsNotHeldUpByMirrors(t *testing.T) {
	fleet := newFleet(t, time.Hour, 5, func(int) []int { return upTo(5) })
	synctest.Test(t, func(t *testing.T) {
		holdUp := fetching(func(ctx context.Context, from Peer, path, etag string, limit int64) ([]byte, string, error) {
			if !isMirror(fleet, from) {
				return fleet.Fetch(ctx, from, path, etag, limit)
			}
			err := (&line{bytesPerSecond: 100_000}).download(ctx, 1<<30)
			return nil, "", err
		})
		f := NewFollower(FollowerConfig{Network: fleet.network, Client: holdUp, Keys: fleet, Routes: true})
		if err := f.Offer(consensusOf(t, fleet.network, bubbleStart, upTo(5)...)); err != nil {
			t.Fatal(err)
		}
		pass(time.Hour)
		began := time.Now()
		if _, news := f.poll(t.Context()); !news {
			t.Errorf("nothing new")
		}
		if took := time.Since(began); took < 3*mirrorAlone || took > 3*(mirrorAlone+hedge) {
			t.Errorf("took %v", took)
		}
	})
}

func isMirror(f *fleet, p Peer) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.servers[p.ID].mirror
}

// fetching is a function as a Fetcher.
type fetching func(ctx context.Context, from Peer, path, etag string, limit int64) ([]byte, string, error)

func (f fetching) Fetch(ctx context.Context, from Peer, path, etag string, limit int64) ([]byte, string, error) {
	return f(ctx, from, path, etag, limit)
}

// TestPollThatBroughtNewsTellsNoProblem: what was found out about authorities in a poll that a newer
// consensus ended early is no account of whom can be reached. Here a slow mirror has it, of the authorities
// that are asked meanwhile one has not, and another has not answered yet.
func TestPollThatBroughtNewsTellsNoProblem(t *testing.T) {
	fleet := newFleet(t, time.Hour, 3, func(int) []int { return upTo(3) })
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64 // authorities
		late := fetching(func(ctx context.Context, from Peer, path, etag string, limit int64) ([]byte, string, error) {
			if isMirror(fleet, from) {
				<-time.After(4 * hedge)
				return fleet.Fetch(ctx, from, path, etag, limit)
			}
			if asked.Add(1) > 1 {
				<-ctx.Done()
				return nil, "", ctx.Err()
			}
			return nil, "", ErrNotModified
		})
		f := NewFollower(FollowerConfig{Network: fleet.network, Client: late, Keys: fleet, Routes: true})
		if err := f.Offer(consensusOf(t, fleet.network, bubbleStart, upTo(3)...)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- f.Run(ctx) }()
		pass(time.Hour + 50*time.Minute) // the second consensus is there
		cancel()
		<-ended
		if c := f.Current(); c == nil || c.ValidAfter != bubbleStart.Add(time.Hour).UnixMilli() {
			t.Fatalf("the second consensus has not come: %v", f.Problem())
		}
		pass(time.Hour) // nobody asks any more
		if err := f.Stale(); err != nil {
			t.Errorf("stale: %v", err)
		}
		pass(3 * time.Hour)
		if err := f.Problem(); err == nil || strings.Contains(err.Error(), "only") {
			t.Errorf("problem: %v", err)
		}
	})
}

// TestClientAccounts for what comes while it comes, over a real connection.
func TestClientAccounts(t *testing.T) {
	part := strings.Repeat("x", 5000)
	slow := func(w http.ResponseWriter, _ *http.Request) {
		for range 4 {
			w.Write([]byte(part))
			w.(http.Flusher).Flush()
			<-time.After(time.Second)
		}
	}
	simulated(t, http.HandlerFunc(slow), func(t *testing.T, s *server, _ *link.Node, c *Client) {
		ctx, account := withAccount(t.Context())
		done := make(chan error)
		go func() {
			_, _, err := c.Fetch(ctx, s.Peer, "/", "", 1<<20)
			done <- err
		}()
		pass(time.Second / 2)
		for i := range 4 {
			if n := account.total(); n != int64((i+1)*len(part)) || !account.delivers(time.Second) {
				t.Errorf("%d bytes after %d parts, delivers: %v", n, i+1, account.delivers(time.Second))
			}
			pass(time.Second)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		pass(time.Second)
		if account.delivers(time.Second) {
			t.Error("delivers when it is over")
		}
	})
}

// TestCutShortIsSaid: an answer that breaks off is neither a server that cannot be reached nor, when time is
// not the cause, a slow line.
func TestCutShortIsSaid(t *testing.T) {
	n := testNetwork(4, time.Hour)
	answer := func(ctx context.Context, _ int, _ string) ([]byte, error) {
		accountOf(ctx).came(1234)
		return nil, errors.New("connection lost")
	}
	follow(t, n, answer, func(f *Follower, _ *authorities, _ *journal) {
		got := f.Problem().Error()
		for _, part := range []string{"has arrived whole", "after 1234 bytes", "connection lost"} {
			if !strings.Contains(got, part) {
				t.Errorf("%q does not say %q", got, part)
			}
		}
	})
}
