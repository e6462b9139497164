package directory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"torproxy/wire"
)

// registrars judge descriptors in virtual time, as judge says.
type registrars struct {
	network authorityIndex
	judge   func(authority int, descriptor string) (Registration, error)

	mu     sync.Mutex
	posted []posting
}

type authorityIndex interface{ index(id wire.ID) int }

type posting struct {
	authority  int
	descriptor string
	at         time.Duration
}

func (r *registrars) Post(_ context.Context, to Peer, path string, body []byte, limit int64) ([]byte, error) {
	i := r.network.index(to.ID)
	r.mu.Lock()
	r.posted = append(r.posted, posting{i, string(body), time.Since(bubbleStart)})
	r.mu.Unlock()
	if path != DescriptorPath || limit != maxRegistration {
		return nil, fmt.Errorf("posted to %s with answers of %d bytes", path, limit)
	}
	answer, err := r.judge(i, string(body))
	if err != nil {
		return nil, err
	}
	return json.Marshal(answer)
}

func (r *registrars) take() []posting {
	r.mu.Lock()
	defer r.mu.Unlock()
	posted := r.posted
	r.posted = nil
	return posted
}

// publish runs a publisher in a bubble and lets a test look at it.
func publish(t *testing.T, judge func(int, string) (Registration, error), test func(*registrars, chan<- struct{}, *journal)) {
	synctest.Test(t, func(t *testing.T) {
		n := testNetwork(4, 5*time.Second)
		r := &registrars{network: &authorities{network: n}, judge: judge}
		var log journal
		changed := make(chan struct{}, 1)
		edition := 0
		p := NewPublisher(PublisherConfig{Network: n, Client: r, Log: log.logger(), Changed: changed,
			Descriptor: func() ([]byte, error) {
				edition++
				return fmt.Appendf(nil, "edition %d", edition), nil
			}})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		synctest.Wait()
		test(r, changed, &log)
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// remember is what a real authority does: it knows again what it was given.
func remember() func(int, string) (Registration, error) {
	var mu sync.Mutex
	held := map[string]bool{}
	return func(i int, descriptor string) (Registration, error) {
		mu.Lock()
		defer mu.Unlock()
		key := fmt.Sprint(i, descriptor)
		if held[key] {
			return Registration{Result: Known}, nil
		}
		held[key] = true
		return Registration{Result: Added}, nil
	}
}

func TestPublisherRegistersEverywhereAtOnce(t *testing.T) {
	publish(t, remember(), func(r *registrars, changed chan<- struct{}, log *journal) {
		posted := r.take()
		if len(posted) != 4 || slices.ContainsFunc(posted, func(p posting) bool { return p.at != 0 || p.descriptor != "edition 1" }) {
			t.Errorf("posted %v, want the descriptor to four authorities at once", posted)
		}
		if lines := log.take(); len(lines) != 4 || !strings.Contains(lines[0], "authority accepted the descriptor: added") {
			t.Errorf("logged %q", lines)
		}
		pass(time.Hour)
		if posted := r.take(); len(posted) != 4*60 {
			t.Errorf("posted %d times in an hour, want every twelve rounds", len(posted))
		}
		if lines := log.take(); len(lines) != 0 {
			t.Errorf("repetitions are news: %q", lines)
		}
	})
}

func TestPublisherPublishesChanges(t *testing.T) {
	publish(t, remember(), func(r *registrars, changed chan<- struct{}, log *journal) {
		pass(10 * time.Second)
		r.take()
		log.take()
		changed <- struct{}{}
		synctest.Wait()
		posted := r.take()
		if len(posted) != 4 || slices.ContainsFunc(posted, func(p posting) bool { return p.descriptor != "edition 2" || p.at != 10*time.Second }) {
			t.Errorf("posted %v, want the new descriptor to four authorities at once", posted)
		}
		if lines := log.take(); len(lines) != 4 {
			t.Errorf("logged %q", lines)
		}
		pass(renewal + time.Second)
		if posted := r.take(); posted[len(posted)-1].descriptor != "edition 3" {
			t.Errorf("after %v still %q: authorities refuse it when it is two days old", renewal, posted[len(posted)-1].descriptor)
		}
	})
}

func TestPublisherKeepsTrying(t *testing.T) {
	reachable := bubbleStart.Add(20 * time.Second)
	known := remember()
	judge := func(i int, descriptor string) (Registration, error) {
		switch {
		case i == 0:
			return Registration{Result: Refused, Reason: "the clock is off\nby an hour"}, nil
		case i == 1 && time.Now().Before(reachable):
			return Registration{}, fmt.Errorf("no route, at %v", time.Now())
		case i == 2 && time.Now().Before(reachable):
			return Registration{}, &StatusError{Code: 503, Message: "starting"}
		}
		return known(i, descriptor)
	}
	publish(t, judge, func(r *registrars, _ chan<- struct{}, log *journal) {
		pass(30 * time.Second)
		counts := map[int]int{}
		for _, p := range r.take() {
			counts[p.authority]++
		}
		if counts[0] < 4 || counts[0] > 16 || counts[1] < 20 || counts[1] > 50 || counts[2] < 20 || counts[3] != 1 {
			t.Errorf("posted by authority: %v", counts)
		}
		lines := log.take()
		slices.Sort(lines)
		want := []string{
			`level=INFO msg="authority accepted the descriptor: added" authority=authority2`,
			`level=INFO msg="authority accepted the descriptor: added" authority=authority3`,
			`level=INFO msg="authority accepted the descriptor: added" authority=authority4`,
			`level=WARN msg="authority cannot be reached" authority=authority2`,
			`level=WARN msg="authority did not judge the descriptor (503)" authority=authority3`,
			`level=WARN msg="authority refused the descriptor: the clock is off" authority=authority1`,
		}
		if !slices.EqualFunc(lines, want, strings.HasPrefix) {
			t.Errorf("logged\n%s", strings.Join(lines, ""))
		}
	})
}

func TestPublisherLogsWhatAnAuthorityForgotOrKnew(t *testing.T) {
	anew := bubbleStart.Add(time.Second) // then the authorities start anew, with nothing
	judge := func(int, string) (Registration, error) {
		if time.Now().Before(anew) {
			return Registration{Result: Known}, nil
		}
		return Registration{Result: Added}, nil
	}
	publish(t, judge, func(r *registrars, _ chan<- struct{}, log *journal) {
		if lines := log.take(); len(lines) != 4 || !strings.Contains(lines[0], "INFO msg=\"authority accepted the descriptor: already known") {
			t.Errorf("a relay that was known before: %q", lines)
		}
		pass(61 * time.Second)
		if lines := log.take(); len(lines) != 4 || !strings.Contains(lines[0], "INFO msg=\"authority accepted the descriptor: added") {
			t.Errorf("an authority that forgot: %q", lines)
		}
	})
}

func TestPublisherEndsWithItsDescriptor(t *testing.T) {
	broken := errors.New("no address")
	calls := 0
	synctest.Test(t, func(t *testing.T) {
		p := NewPublisher(PublisherConfig{
			Network: testNetwork(2, time.Second),
			Client:  &registrars{network: &authorities{network: testNetwork(2, time.Second)}, judge: remember()},
			Descriptor: func() ([]byte, error) {
				if calls++; calls > 1 {
					return nil, broken
				}
				return []byte("d"), nil
			}})
		if err := p.Run(t.Context()); !errors.Is(err, broken) {
			t.Errorf("Run: %v", err)
		}
	})
}

func FuzzParseRegistration(f *testing.F) {
	f.Add([]byte(`{"result":"added"}`))
	f.Add([]byte(`{"result":"refused","reason":"a\u001b[31m\nb"}`))
	f.Add([]byte(`{"result":"perhaps"}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		r, err := parseRegistration(answer)
		if err != nil {
			return
		}
		if r.Result != Added && r.Result != Known && r.Result != Refused {
			t.Errorf("result %q", r.Result)
		}
		if len(r.Reason) > maxMessage || strings.ContainsFunc(r.Reason, func(c rune) bool { return c < ' ' || c > '~' }) {
			t.Errorf("reason %q is not fit for a log", r.Reason)
		}
	})
}
