package proxy

import (
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"torproxy/proxy/route"
	"torproxy/wire/netdoc"
)

// Record is how one request went, for the person who made it: what it waited for, which relay said what,
// and how long each step took. Records are kept in memory only, the last 256 of them, until NewIdentity;
// nothing of them is ever logged or sent.
type Record struct {
	Target    string // as it was asked for: HOST:PORT, or what was to be resolved
	Isolation string // the request's label
	Began     time.Time
	Took      time.Duration // until it was connected or failed; so far, while it is pending
	Outcome   Outcome
	Err       string   // why it failed or broke
	Path      []string // nicknames of the last circuit's relays, first hop first
	Steps     []Step   // in the order in which they ended, at most 32
}

// Outcome is what has become of a request.
type Outcome string

// The outcomes.
const (
	OutcomePending   Outcome = "pending"   // neither answer nor failure yet
	OutcomeConnected Outcome = "connected" // the exit has connected it
	OutcomeResolved  Outcome = "resolved"  // the exit has answered
	OutcomeFailed    Outcome = "failed"    // it never was connected
	OutcomeGivenUp   Outcome = "given up"  // by whoever asked, before there was an answer
	OutcomeBroken    Outcome = "broken"    // it was connected, and then cut
)

// Step is one thing that was done for a request.
type Step struct {
	What    string        // one of the constants below
	Circuit string        // its ID, as in CircuitInfo; "" where there is none
	Hop     int           // who the result is about, counted from 1; 0 is this machine
	Relay   string        // nickname of the relay at that hop
	Took    time.Duration // this step alone
	Result  string        // "ok", or what the hop said; other results stand at the constants
}

// The steps of a request.
const (
	StepBuild     = "build"      // one attempt to build a circuit that the request waited for
	StepCircuit   = "circuit"    // a circuit was found: "ready", "built" for it, or why there is none
	StepOpen      = "open"       // the exit was asked to connect, or to make an HTTP request
	StepResolve   = "resolve"    // the exit was asked to resolve
	StepFirstByte = "first byte" // the destination's first byte came; Took counts from the connection
	StepBreak     = "break"      // what cut a connection; Took counts from the connection too
)

const (
	maxRecords = 256
	maxSteps   = 32 // of one record: three circuits with five attempts to build each, and some to spare
	resultOK   = "ok"
)

// records holds the last requests in a ring: a new one takes the place of the oldest, and its memory.
type records struct {
	mu     sync.Mutex
	newest uint64 // number of the newest record; they count from 1
	slots  [maxRecords]slot
}

type slot struct {
	number uint64 // 0: empty
	Record
}

// trace writes one record. The zero trace writes nothing, nor does one whose record has been forgotten.
type trace struct {
	records *records
	number  uint64
}

// begin makes a record in the place of the oldest.
func (r *records) begin(target, isolation string) trace {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.newest++
	s := &r.slots[r.newest%maxRecords]
	s.number = r.newest
	s.Record = Record{
		Target: target, Isolation: isolation, Began: now, Outcome: OutcomePending,
		Path: s.Path[:0], Steps: s.Steps[:0],
	}
	return trace{r, r.newest}
}

// forget empties the ring; what is still written to its records is lost.
func (r *records) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.slots[:])
}

// Why returns the records of requests for a host, newest first; "" is all hosts. host is a name or an
// address, brackets or not.
func (p *Proxy) Why(host string) []Record {
	now := time.Now()
	host = canonicalHost(host)
	r := &p.records
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []Record
	for n := r.newest; n > 0 && n+maxRecords > r.newest; n-- {
		s := &r.slots[n%maxRecords]
		if s.number != n || host != "" && canonicalHost(hostOf(s.Target)) != host {
			continue
		}
		c := s.Record
		c.Path, c.Steps = slices.Clone(c.Path), slices.Clone(c.Steps)
		if c.Outcome == OutcomePending {
			c.Took = now.Sub(c.Began)
		}
		found = append(found, c)
	}
	return found
}

// hostOf returns the host of HOST:PORT; a target without a port is all host.
func hostOf(target string) string {
	if host, _, err := net.SplitHostPort(target); err == nil {
		return host
	}
	return target
}

// canonicalHost makes one spelling of those that name the same host: names without case and final dot,
// addresses as netip writes them.
func canonicalHost(host string) string {
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if t := route.TargetOf(host, 1); t.Addr.IsValid() {
		return t.Addr.String()
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// write changes the record, if it is still there.
func (t trace) write(change func(*Record)) {
	if t.records == nil {
		return
	}
	t.records.mu.Lock()
	defer t.records.mu.Unlock()
	if s := &t.records.slots[t.number%maxRecords]; s.number == t.number {
		change(&s.Record)
	}
}

// step adds a step; one too many is not noted.
func (t trace) step(s Step) {
	t.write(func(r *Record) {
		if len(r.Steps) < maxSteps {
			r.Steps = append(r.Steps, s)
		}
	})
}

// built notes one attempt to build a circuit along a route.
func (t trace) built(circuit string, route []*netdoc.Relay, took time.Duration, err error) {
	if t.records == nil {
		return
	}
	s := Step{What: StepBuild, Circuit: circuit, Took: took, Result: resultOK}
	s.blame(err, route)
	t.step(s)
}

// found notes the circuit that the request goes through.
func (t trace) found(h *held, took time.Duration, result string) {
	t.onPath(h.id, h.circuit.Route(), took, result)
}

func (t trace) onPath(circuit string, route []*netdoc.Relay, took time.Duration, result string) {
	t.step(Step{What: StepCircuit, Circuit: circuit, Took: took, Result: result})
	t.write(func(r *Record) {
		r.Path = r.Path[:0]
		for _, relay := range route {
			r.Path = append(r.Path, relay.Nickname)
		}
	})
}

// none notes that there is no circuit.
func (t trace) none(took time.Duration, err error) {
	s := Step{What: StepCircuit, Took: took}
	s.blame(err, nil)
	t.step(s)
}

// asked notes what became of a stream on a circuit.
func (t trace) asked(what string, h *held, took time.Duration, err error) {
	if t.records != nil {
		t.answered(what, h.id, h.circuit.Route(), took, err)
	}
}

func (t trace) answered(what, circuit string, route []*netdoc.Relay, took time.Duration, err error) {
	s := Step{What: what, Circuit: circuit, Hop: len(route), Relay: nicknameAt(route, len(route)), Took: took, Result: resultOK}
	s.blame(err, route)
	t.step(s)
}

// firstByte notes the destination's first byte.
func (t trace) firstByte(l *leg) { t.asked(StepFirstByte, l.held, time.Since(l.answered), nil) }

// broke notes what cut a connection.
func (t trace) broke(l *leg, err error) {
	t.asked(StepBreak, l.held, time.Since(l.answered), err)
	t.failed(OutcomeBroken, err)
}

// blame fills in who says what of an error; nil changes nothing.
func (s *Step) blame(err error, route []*netdoc.Relay) {
	if err == nil {
		return
	}
	e := errorOf(err, len(route))
	s.Hop, s.Relay, s.Result = e.Hop, nicknameAt(route, e.Hop), e.whole()
}

func nicknameAt(route []*netdoc.Relay, hop int) string {
	if hop < 1 || hop > len(route) {
		return ""
	}
	return route[hop-1].Nickname
}

// connected notes that the exit has answered.
func (t trace) connected(o Outcome) {
	t.write(func(r *Record) { r.Outcome, r.Took = o, time.Since(r.Began) })
}

// failed notes how the request ended; outcome says whether it ever was connected.
func (t trace) failed(o Outcome, err error) {
	text := err.Error()
	if e, ok := errors.AsType[*Error](err); ok {
		text = e.told()
	}
	t.write(func(r *Record) {
		if o != OutcomeBroken {
			r.Took = time.Since(r.Began)
		}
		r.Outcome, r.Err = o, text
	})
}

// again makes a record pending that had failed: the request goes on elsewhere.
func (t trace) again() {
	t.write(func(r *Record) { r.Outcome, r.Err = OutcomePending, "" })
}
