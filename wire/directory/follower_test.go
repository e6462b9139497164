package directory

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// authorities answer a follower in virtual time, as answer says.
type authorities struct {
	network *netdoc.Network
	answer  func(ctx context.Context, authority int, etag string) ([]byte, error)

	mu    sync.Mutex
	asked []visit
}

type visit struct {
	authority int
	at        time.Duration // since the bubble's start
}

func (a *authorities) Fetch(ctx context.Context, from Peer, path, etag string, limit int64) ([]byte, string, error) {
	i := a.index(from.ID)
	a.mu.Lock()
	a.asked = append(a.asked, visit{i, time.Since(bubbleStart)})
	a.mu.Unlock()
	if path, _, _ = strings.Cut(path, "?from="); path != ConsensusPath || limit != netdoc.MaxConsensus {
		return nil, "", fmt.Errorf("asked for %s of %d bytes", path, limit)
	}
	body, err := a.answer(ctx, i, etag)
	return body, "", err
}

func (a *authorities) index(id wire.ID) int {
	for i := range a.network.Authorities {
		if a.network.Authorities[i].ID == id {
			return i
		}
	}
	return -1
}

func (a *authorities) take() []visit {
	a.mu.Lock()
	defer a.mu.Unlock()
	asked := a.asked
	a.asked = nil
	return asked
}

// serving answers with the consensus of the round that the clock is in, some time late.
func serving(t *testing.T, n *netdoc.Network, late time.Duration) func(context.Context, int, string) ([]byte, error) {
	return func(_ context.Context, _ int, tag string) ([]byte, error) {
		round, _ := n.Params.RoundAt(time.Now().Add(-late))
		raw := consensusOf(t, n, round, 1, 2)
		if tag == etag(parse(t, n, raw)) {
			return nil, ErrNotModified
		}
		return raw, nil
	}
}

// follow runs a follower in a bubble and lets a test look at it.
func follow(t *testing.T, n *netdoc.Network, answer func(context.Context, int, string) ([]byte, error), test func(*Follower, *authorities, *journal)) {
	synctest.Test(t, func(t *testing.T) {
		a := &authorities{network: n, answer: answer}
		var log journal
		f := NewFollower(FollowerConfig{Network: n, Client: a, Log: log.logger()})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- f.Run(ctx) }()
		synctest.Wait()
		test(f, a, &log)
		cancel()
		stopped := time.Now()
		if err := <-ended; err != nil || time.Since(stopped) != 0 {
			t.Errorf("Run ended %v after its context: %v", time.Since(stopped), err)
		}
	})
}

// pass lets virtual time pass.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestFollowerAsksAtOnceAndThenOnceARound(t *testing.T) {
	n := testNetwork(4, 10*time.Minute)
	follow(t, n, serving(t, n, 0), func(f *Follower, a *authorities, log *journal) {
		if f.Current() == nil || f.Problem() != nil {
			t.Fatalf("nothing at once: %v", f.Problem())
		}
		if asked := a.take(); len(asked) != 1 || asked[0].at != 0 {
			t.Errorf("asked %v, want one authority at once", asked)
		}
		seen := map[int]bool{}
		for round := range 30 {
			pass(10 * time.Minute)
			asked := a.take()
			// Round k's poll lies in the first tenth after it began; the first pass ends as round 1 begins.
			for _, v := range asked {
				seen[v.authority] = true
				if into := v.at % (10 * time.Minute); into > time.Minute {
					t.Errorf("asked %v into a round", into)
				}
			}
			if len(asked) > 1 || round > 0 && len(asked) != 1 {
				t.Errorf("asked %d times in a round", len(asked))
			}
		}
		if len(seen) < 3 {
			t.Errorf("asked only %d of 4 authorities in 30 rounds", len(seen))
		}
		if lines := log.take(); len(lines) != 1 {
			t.Errorf("logged %q, want the first consensus only", lines)
		}
	})
}

func TestFollowerAsksSoonAgainWhileThereIsNothing(t *testing.T) {
	n := testNetwork(1, 5*time.Second)
	ready := bubbleStart.Add(3 * time.Second)
	serve := serving(t, n, 0)
	answer := func(ctx context.Context, i int, tag string) ([]byte, error) {
		if time.Now().Before(ready) {
			return nil, &StatusError{Code: 503, Message: "no consensus yet"}
		}
		return serve(ctx, i, tag)
	}
	follow(t, n, answer, func(f *Follower, a *authorities, log *journal) {
		pass(4 * time.Second)
		if f.Current() == nil {
			t.Fatal("no consensus a second after it could be had")
		}
		asked := a.take()
		if len(asked) < 10 || len(asked) > 40 {
			t.Errorf("asked %d times in three seconds", len(asked))
		}
		for i := 1; i < len(asked); i++ {
			gap := asked[i].at - asked[i-1].at
			if gap < 45*time.Millisecond || gap > max(55*time.Millisecond, asked[i-1].at*11/40) {
				t.Errorf("asked again after %v, %v after the start", gap, asked[i-1].at)
			}
		}
		if lines := log.take(); len(lines) != 2 || !strings.Contains(lines[0], "no consensus yet") {
			t.Errorf("logged %q, want the problem and its end", lines)
		}
	})
}

func TestFollowerBacksOffToABound(t *testing.T) {
	n := testNetwork(4, time.Hour)
	unreachable := func(context.Context, int, string) ([]byte, error) { return nil, errors.New("no route") }
	follow(t, n, unreachable, func(f *Follower, a *authorities, _ *journal) {
		pass(2 * time.Hour)
		a.take()
		pass(10 * time.Minute)
		if asked := len(a.take()); asked < 4*9 || asked > 4*12 {
			t.Errorf("asked %d times in ten minutes, want four authorities about every minute", asked)
		}
	})
}

func TestFollowerTriesTheNextAuthority(t *testing.T) {
	n := testNetwork(4, time.Hour)
	serve := serving(t, n, 0)
	t.Run("when one fails", func(t *testing.T) {
		answer := func(ctx context.Context, i int, tag string) ([]byte, error) {
			if i != 2 {
				return nil, errors.New("no route")
			}
			return serve(ctx, i, tag)
		}
		follow(t, n, answer, func(f *Follower, _ *authorities, _ *journal) {
			if f.Current() == nil {
				t.Errorf("not found at once: %v", f.Problem())
			}
		})
	})
	t.Run("when one is silent", func(t *testing.T) {
		answer := func(ctx context.Context, i int, tag string) ([]byte, error) {
			if i != 2 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return serve(ctx, i, tag)
		}
		follow(t, n, answer, func(f *Follower, _ *authorities, _ *journal) {
			pass(3 * hedge)
			if f.Current() == nil {
				t.Errorf("waits for silent authorities: %v", f.Problem())
			}
		})
	})
	t.Run("when one lies", func(t *testing.T) {
		answer := func(ctx context.Context, i int, tag string) ([]byte, error) {
			if i != 2 {
				return []byte("no such thing"), nil
			}
			return serve(ctx, i, tag)
		}
		follow(t, n, answer, func(f *Follower, _ *authorities, _ *journal) {
			if f.Current() == nil {
				t.Errorf("not found at once: %v", f.Problem())
			}
		})
	})
}

func TestFollowerNeverGoesBack(t *testing.T) {
	n := testNetwork(4, time.Minute)
	serve := serving(t, n, 0)
	behind := serving(t, n, time.Minute)
	answer := func(ctx context.Context, i int, tag string) ([]byte, error) {
		if i < 3 {
			return behind(ctx, i, "") // sends the older document, whatever is asked for
		}
		return serve(ctx, i, tag)
	}
	follow(t, n, answer, func(f *Follower, _ *authorities, _ *journal) {
		last := int64(0)
		for range 300 {
			pass(2 * time.Second)
			c := f.Current()
			if c == nil {
				t.Fatal(f.Problem())
			}
			if c.ValidAfter < last {
				t.Fatal("went back to an earlier round")
			}
			last = c.ValidAfter
		}
		if behind := time.Since(time.UnixMilli(last)); behind > 70*time.Second {
			t.Errorf("the newest round held is %v old", behind)
		}
	})
}

func TestProblems(t *testing.T) {
	n := testNetwork(4, time.Hour)
	status := &StatusError{Code: 503, Message: "no consensus yet"}
	noRoute := errors.New("no route")
	tests := []struct {
		name   string
		answer func(ctx context.Context, i int, tag string) ([]byte, error)
		want   []string
	}{
		{"nobody reachable", func(context.Context, int, string) ([]byte, error) { return nil, noRoute },
			[]string{"none of the 4 directory authorities can be reached", "no route"}},
		{"too few reachable", func(_ context.Context, i int, _ string) ([]byte, error) {
			if i < 2 {
				return nil, noRoute
			}
			return nil, status
		}, []string{"only 2 of 4 directory authorities can be reached", "needs 3", "no consensus yet"}},
		{"none made", func(context.Context, int, string) ([]byte, error) { return nil, status },
			[]string{"the directory authorities have no usable consensus", "503", "no consensus yet"}},
		{"forged", func(context.Context, int, string) ([]byte, error) { return []byte("x"), nil },
			[]string{"no usable consensus", "netdoc: consensus"}},
		{"clock fast", func(context.Context, int, string) ([]byte, error) {
			return consensusOf(t, n, bubbleStart.Add(-24*time.Hour), 1), nil
		}, []string{"the clock is fast", "21h0m0s after"}},
		{"clock slow", func(context.Context, int, string) ([]byte, error) {
			return consensusOf(t, n, bubbleStart.Add(24*time.Hour), 1), nil
		}, []string{"the clock is slow", "24h0m0s before"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			follow(t, n, test.answer, func(f *Follower, _ *authorities, log *journal) {
				problem := f.Problem()
				if _, ok := errors.AsType[*UnavailableError](problem); !ok {
					t.Fatalf("problem %T", problem)
				}
				for _, part := range test.want {
					if !strings.Contains(problem.Error(), part) {
						t.Errorf("problem %q does not say %q", problem, part)
					}
				}
				pass(10 * time.Second)
				if lines := log.take(); len(lines) != 1 {
					t.Errorf("logged %d times: %q", len(lines), lines)
				}
			})
		})
	}
}

func TestProblemBeforeRun(t *testing.T) {
	f := NewFollower(FollowerConfig{Network: testNetwork(4, time.Hour)})
	if problem := f.Problem(); problem == nil || !strings.Contains(problem.Error(), "no consensus yet") {
		t.Errorf("problem %v", problem)
	}
}

// A consensus that is not renewed stays usable to its end; then the problem says that it is over, and why.
func TestFollowerSaysThatItsConsensusExpired(t *testing.T) {
	n := testNetwork(4, time.Hour)
	serve := serving(t, n, 0)
	answer := func(ctx context.Context, i int, tag string) ([]byte, error) {
		if time.Since(bubbleStart) > time.Minute {
			return nil, errors.New("no route")
		}
		return serve(ctx, i, tag)
	}
	follow(t, n, answer, func(f *Follower, _ *authorities, log *journal) {
		pass(3 * time.Hour)
		if problem := f.Problem(); problem != nil {
			t.Errorf("a problem before the consensus is over: %v", problem)
		}
		log.take()
		pass(2 * time.Minute)
		problem := f.Problem()
		if problem == nil || !strings.Contains(problem.Error(), "none of the 4") || !strings.Contains(problem.Error(), "the consensus held") {
			t.Errorf("problem %v", problem)
		}
		if f.Current() == nil {
			t.Error("the expired consensus is gone: nobody could look relays up any more")
		}
		if lines := log.take(); len(lines) != 1 {
			t.Errorf("logged %q", lines)
		}
	})
}

// With two of four authorities down the last consensus is used on, and the follower says so, why, and until
// when: once in the log, and once more when it is over or there is a new one.
func TestFollowerSaysThatItsConsensusIsOld(t *testing.T) {
	n := testNetwork(4, time.Hour)
	serve := serving(t, n, 0)
	first := consensusOf(t, n, bubbleStart, 1, 2)
	var up time.Duration // when there is a new one
	answer := func(ctx context.Context, i int, tag string) ([]byte, error) {
		switch since := time.Since(bubbleStart); {
		case since < time.Minute || up > 0 && since > up:
			return serve(ctx, i, tag)
		case i < 2:
			return nil, errors.New("no route")
		case tag == etag(parse(t, n, first)):
			return nil, ErrNotModified
		default:
			return first, nil
		}
	}
	old := []string{"only 2 of 4", "needs 3", "good until", bubbleStart.Add(3 * time.Hour).UTC().Format(time.RFC3339)}
	checkSays := func(t *testing.T, err error, want []string) {
		t.Helper()
		for _, part := range want {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("got %v, want %q in it", err, part)
			}
		}
	}
	for _, up = range []time.Duration{0, 150 * time.Minute} {
		follow(t, n, answer, func(f *Follower, _ *authorities, log *journal) {
			log.take()
			pass(time.Hour + 20*time.Minute)
			if err := f.Stale(); err != nil {
				t.Errorf("so soon: %v", err)
			}
			pass(25 * time.Minute)
			checkSays(t, f.Stale(), old)
			if f.Problem() != nil || f.Current() == nil {
				t.Errorf("the consensus is not used on: %v", f.Problem())
			}
			if lines := log.take(); len(lines) != 1 || !strings.Contains(lines[0], "used on") {
				t.Errorf("logged %q", lines)
			}
			pass(80 * time.Minute)
			lines := log.take()
			if up > 0 {
				if f.Stale() != nil || f.Problem() != nil || len(lines) != 1 || !strings.Contains(lines[0], "new consensus") {
					t.Errorf("with a new one: %v, %v; logged %q", f.Stale(), f.Problem(), lines)
				}
				return
			}
			checkSays(t, f.Problem(), []string{"only 2 of 4", "the consensus held"})
			if f.Stale() != nil || len(lines) != 1 || !strings.Contains(lines[0], "no usable consensus") {
				t.Errorf("when it is over: %v; logged %q", f.Stale(), lines)
			}
		})
	}
}

func TestFollowerWaitsWithAConsensusFromAFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testNetwork(4, time.Hour)
		a := &authorities{network: n, answer: serving(t, n, 0)}
		f := NewFollower(FollowerConfig{Network: n, Client: a})
		if err := f.Offer(consensusOf(t, n, bubbleStart, 1, 2)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Minute)
		defer cancel()
		if err := f.Run(ctx); err != nil {
			t.Error(err)
		}
		if asked := a.take(); len(asked) != 0 {
			t.Errorf("asked %v while its consensus was fresh", asked)
		}
	})
}

func TestFollowerStopsWhileAnAuthorityIsSilent(t *testing.T) {
	silent := func(ctx context.Context, _ int, _ string) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	follow(t, testNetwork(4, time.Hour), silent, func(f *Follower, a *authorities, _ *journal) {
		pass(2 * hedge)
		if asked := a.take(); len(asked) != 3 {
			t.Errorf("asked %v, want three by now", asked)
		}
	})
}
