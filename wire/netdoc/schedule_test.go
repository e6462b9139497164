package netdoc

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func ms(n int64) time.Time { return time.UnixMilli(n) }

func TestSchedule(t *testing.T) {
	const s = testStart
	hourly := Params{Round: Duration(time.Hour)}
	started := Params{Round: Duration(5 * time.Second), Start: s}
	initial := Params{Round: Duration(5 * time.Second), Start: s, InitialRound: Duration(250 * time.Millisecond), InitialRounds: 3}
	const hour = testHour
	for _, c := range []struct {
		name   string
		params Params
		at     time.Time
		round  int64 // RoundAt, 0: none
		next   int64 // NextRound
	}{
		{"on an hour", hourly, ms(10 * hour), 10 * hour, 11 * hour},
		{"just before", hourly, ms(10*hour - 1), 9 * hour, 10 * hour},
		{"a nanosecond before", hourly, ms(10 * hour).Add(-1), 9 * hour, 10 * hour},
		{"a nanosecond after", hourly, ms(10 * hour).Add(1), 10 * hour, 11 * hour},
		{"just after", hourly, ms(10*hour + 1), 10 * hour, 11 * hour},
		{"in another zone", hourly, ms(10 * hour).In(time.FixedZone("", 1800)), 10 * hour, 11 * hour},
		{"before 1970", hourly, ms(-1), -hour, 0},
		{"before 1970, on an hour", hourly, ms(-2 * hour), -2 * hour, -hour},

		{"long before the start", started, ms(0), 0, s},
		{"before the start", started, ms(s - 1), 0, s},
		{"at the start", started, ms(s), s, s + 5000},
		{"in the first round", started, ms(s + 4999), s, s + 5000},
		{"the second round", started, ms(s + 5000), s + 5000, s + 10000},

		{"before the initial rounds", initial, ms(s - 1), 0, s},
		{"initial round 0", initial, ms(s), s, s + 250},
		{"in initial round 0", initial, ms(s + 249), s, s + 250},
		{"initial round 1", initial, ms(s + 250), s + 250, s + 500},
		{"initial round 2", initial, ms(s + 500), s + 500, s + 750},
		{"in the last initial round", initial, ms(s + 749), s + 500, s + 750},
		{"the first regular round", initial, ms(s + 750), s + 750, s + 5750},
		{"in the first regular round", initial, ms(s + 5749), s + 750, s + 5750},
		{"the second regular round", initial, ms(s + 5750), s + 5750, s + 10750},
		{"much later", initial, ms(s + 750 + 5000*1000000 + 3), s + 750 + 5000*1000000, s + 750 + 5000*1000001},
	} {
		got, ok := c.params.RoundAt(c.at)
		if none := c.name != "before 1970" && c.round == 0; ok == none || ok && got.UnixMilli() != c.round {
			t.Errorf("%s: RoundAt %v, %v; want %d", c.name, got.UnixMilli(), ok, c.round)
		}
		if next := c.params.NextRound(c.at); next.UnixMilli() != c.next || !next.After(c.at) {
			t.Errorf("%s: NextRound %d, want %d", c.name, next.UnixMilli(), c.next)
		}
	}
}

// Rounds follow each other without gap or overlap.
func TestScheduleIsContinuous(t *testing.T) {
	p := Params{Round: Duration(time.Second), Start: testStart, InitialRound: Duration(70 * time.Millisecond), InitialRounds: 5}
	at := ms(testStart - 1)
	for range 20 {
		next := p.NextRound(at)
		if round, ok := p.RoundAt(next); !ok || !round.Equal(next) {
			t.Fatalf("%v is no valid-after of its own", next.UnixMilli())
		}
		if round, ok := p.RoundAt(next.Add(-1)); ok && !round.Equal(at) {
			t.Fatalf("just before %d lies %d, want %d", next.UnixMilli(), round.UnixMilli(), at.UnixMilli())
		}
		at = next
	}
	if want := testStart + 5*70 + 14*1000; at.UnixMilli() != want {
		t.Errorf("the twentieth round is at %d, want %d", at.UnixMilli(), want)
	}
}

func TestTimes(t *testing.T) {
	for _, c := range []struct {
		name         string
		round, valid time.Duration
		fresh, until time.Duration // after valid-after
	}{
		{"three rounds", time.Hour, 0, time.Hour, 3 * time.Hour},
		{"at least a minute", 5 * time.Second, 0, 5 * time.Second, time.Minute},
		{"as the file says", 5 * time.Second, 7 * time.Second, 5 * time.Second, 7 * time.Second},
	} {
		p := Params{Round: Duration(c.round), Valid: Duration(c.valid)}
		at := ms(10 * testHour)
		fresh, until := p.Times(at)
		if fresh.Sub(at) != c.fresh || until.Sub(at) != c.until {
			t.Errorf("%s: %v, %v; want %v, %v", c.name, fresh.Sub(at), until.Sub(at), c.fresh, c.until)
		}
	}
	n, _ := testNetwork(1)
	fresh, until := n.Params.Times(ms(testStart + 250)) // an initial round
	if fresh.UnixMilli() != testStart+500 || until.UnixMilli() != testStart+250+60000 {
		t.Errorf("initial round: %d, %d", fresh.UnixMilli(), until.UnixMilli())
	}
}

func TestConsensusCheck(t *testing.T) {
	c := &Consensus{ValidAfter: testStart, FreshUntil: testStart + testHour, ValidUntil: testStart + 3*testHour}
	skew := ClockSkew.Milliseconds()
	for _, k := range []struct {
		at   int64
		off  time.Duration
		says string
	}{
		{testStart, 0, ""},
		{testStart - skew, 0, ""},
		{testStart - skew - 1, -ClockSkew - time.Millisecond, "30s before the consensus begins"},
		{testStart - 24*testHour, -24 * time.Hour, "24h0m0s before the consensus begins"},
		{testStart + 3*testHour, 0, ""},
		{testStart + 3*testHour + 1, time.Millisecond, "0s after the consensus ended"},
		{testStart + 3*testHour + 90_000, 90 * time.Second, "1m30s after the consensus ended"},
	} {
		err := c.Check(ms(k.at))
		clock, bad := errors.AsType[*ClockError](err)
		if bad != (k.says != "") {
			t.Errorf("at %d: %v", k.at-testStart, err)
		} else if bad && (clock.Off() != k.off || !strings.Contains(err.Error(), k.says)) {
			t.Errorf("at %d: off %v, %q; want %v, %q", k.at-testStart, clock.Off(), err, k.off, k.says)
		}
	}
}
