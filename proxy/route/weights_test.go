package route

import (
	"math"
	"math/rand/v2"
	"testing"

	"torproxy/wire/netdoc"
)

// TestDivide checks, for bandwidths of all proportions and every length, that no class serves for more than
// all of itself, that where it can be every position gets its part of the bandwidth, and that where it can't
// be nothing that could help serves elsewhere.
func TestDivide(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 20000 {
		var b [classes]float64
		for c := range b {
			b[c] = math.Trunc(math.Exp(rnd.Float64()*8)) * float64(rnd.IntN(2))
		}
		total := b[plain] + b[guardOnly] + b[exitOnly] + b[guardExit]
		n := 2 + rnd.IntN(7)
		s := divide(b, n)
		var at [positions]float64
		for c, row := range s {
			sum := 0.0
			for p, share := range row {
				if share < 0 || share > 1 || math.IsNaN(share) {
					t.Fatalf("%v, %d hops: shares %v", b, n, s)
				}
				sum += share
				at[p] += share * b[c]
			}
			if math.Abs(sum-1) > 1e-9 {
				t.Fatalf("%v, %d hops: class %d serves for %v of itself", b, n, c, sum)
			}
		}
		if s[plain][atGuard] != 0 || s[plain][atExit] != 0 || s[guardOnly][atExit] != 0 || s[exitOnly][atGuard] != 0 {
			t.Fatalf("%v, %d hops: who may not be there serves there: %v", b, n, s)
		}
		want := total / float64(n)
		g, e, d := b[guardOnly], b[exitOnly], b[guardExit]
		near := func(a, b float64) bool { return math.Abs(a-b) < 1e-6*(total+1) }
		enough := g+d >= want && e+d >= want && g+e+d >= 2*want
		switch {
		case total == 0:
		case enough && !(near(at[atGuard], want) && near(at[atExit], want)):
			t.Fatalf("%v, %d hops: %v at the positions, want %v for guard and exit", b, n, at, want)
		case enough:
		case g < want && e < want: // D evens them out as far as it can
			if !near(at[atGuard]+at[atExit], g+e+d) {
				t.Fatalf("%v, %d hops: %v at the positions, guards and exits serve elsewhere", b, n, at)
			}
			if off := math.Abs(at[atGuard] - at[atExit]); !near(off, max(math.Abs(g-e)-d, 0)) {
				t.Fatalf("%v, %d hops: %v at the positions, not evened out", b, n, at)
			}
		case e+d < want && !(near(at[atExit], e+d) && near(at[atGuard], min(g, (total-e-d)/float64(n-1)))):
			t.Fatalf("%v, %d hops: exits are scarce: %v at the positions", b, n, at)
		case g+d < want && !(near(at[atGuard], g+d) && near(at[atExit], min(e, (total-g-d)/float64(n-1)))):
			t.Fatalf("%v, %d hops: guards are scarce: %v at the positions", b, n, at)
		}
	}
}

// TestDivideLikeTor compares with dir-spec's own formulas, for three hops and where they are about the same
// question.
func TestDivideLikeTor(t *testing.T) {
	for _, test := range []struct {
		name       string
		g, m, e, d float64
		want       shares
	}{
		// Case 1: Wgd = Wed = Wmd = 1/3, Wee = (E+G+M)/3E, Wgg = (E+G+M)/3G.
		{"neither scarce", 400, 100, 400, 90, shares{
			plain:     {atMiddle: 1},
			guardOnly: {900.0 / 1200, 1 - 900.0/1200, 0},
			exitOnly:  {0, 1 - 900.0/1200, 900.0 / 1200},
			guardExit: {1.0 / 3, 1.0 / 3, 1.0 / 3},
		}},
		// Case 2a, D too little to even out: Wgd = 0, Wed = 1.
		{"both scarce, exits more", 300, 1000, 100, 50, shares{
			plain: {atMiddle: 1}, guardOnly: {1, 0, 0}, exitOnly: {0, 0, 1}, guardExit: {0, 0, 1},
		}},
		// Case 3a, exits scarce with all of D: Wed = 1, Wgg = Wmg = 1/2 of what is left, as M is 0.
		{"exits scarce", 800, 0, 100, 100, shares{
			plain: {atMiddle: 1}, guardOnly: {0.5, 0.5, 0}, exitOnly: {0, 0, 1}, guardExit: {0, 0, 1},
		}},
		// Case 3b: Wed = (T/3 - E)/D, Wgd = Wmd = (1 - Wed)/2.
		{"exits scarce, D fills them", 500, 100, 100, 200, shares{
			plain: {atMiddle: 1}, guardOnly: {0.6, 0.4, 0}, exitOnly: {0, 0, 1}, guardExit: {0, 0, 1},
		}},
	} {
		got := divide([classes]float64{plain: test.m, guardOnly: test.g, exitOnly: test.e, guardExit: test.d}, 3)
		for c := range got {
			for p := range got[c] {
				if math.Abs(got[c][p]-test.want[c][p]) > 1e-9 {
					t.Errorf("%s: class %d at %d: %.4f, want %.4f", test.name, c, p, got[c][p], test.want[c][p])
				}
			}
		}
	}
}

// TestBothWaysDrawAlike draws from one network quickly and thoroughly. Every relay must stand at every position
// as often: conflicts, exclusions and policies do not tell the ways apart.
func TestBothWaysDrawAlike(t *testing.T) {
	const draws = 40000
	c := network(t, 80, 30)
	rnd := seeded(3)
	for i := range c.Relays {
		r := &c.Relays[i]
		r.Weight = 100 + rnd.Uint64N(1000)
		if i%3 == 0 {
			r.Flags |= netdoc.Guard
		}
		if i%5 == 0 && i < 30 {
			r.Policy = policy(t, "accept *:80")
		}
	}
	declare(c, 1, 4, 7, 10, 31, 34, 37, 40, 43, 46)
	declare(c, 2, 5, 33, 36, 39)
	ix := NewIndex(c)
	req := Request{Hops: 3, Target: TargetOf("example.com", 443), Avoid: exclude(3, 50), Exclude: selectors(t, "r6,r51")}
	var seen [2][positions][80]float64
	count := func(way int, route []*node) {
		for p, n := range route {
			for i := range c.Relays {
				if &c.Relays[i] == n.relay {
					seen[way][p][i]++
				}
			}
		}
	}
	for range draws {
		d := &draw{ix: ix, req: &req, rnd: rnd, rules: ix.rules, tables: ix.tables[3]()}
		if d.quick(atExit, d.isExit, nil) == nil {
			t.Fatal("nothing is drawn quickly")
		}
		count(0, d.route())
		d = &draw{ix: ix, req: &req, rnd: rnd, rules: ix.rules, tables: ix.tables[3]()}
		exits := d.list(d.isExit)
		exit, _ := d.pick(exits, atExit)
		all := d.list(func(n *node) bool { return d.isWanted(n) && d.fits(n, []*node{exit}) })
		full := d.extend([]*node{exit}, all)
		count(1, append(full[1:3:3], exit))
	}
	for p := range seen[0] {
		chi, freedom := 0.0, -1.0
		for i := range seen[0][p] {
			if a, b := seen[0][p][i], seen[1][p][i]; a+b > 0 {
				chi += (a - b) * (a - b) / (a + b)
				freedom++
			}
		}
		if limit := freedom + 5*math.Sqrt(2*freedom); chi > limit {
			t.Errorf("position %d: chi squared %.1f above %.1f", p, chi, limit)
		}
	}
}
