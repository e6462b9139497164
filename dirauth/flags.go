package dirauth

import (
	"slices"
	"time"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// What suffices for a flag, however high the others hang it.
const (
	fastEnough   = 100 << 10          // bytes per second, for Fast
	stableRounds = 120                // of uptime, for Stable
	mostStable   = 7 * 24 * time.Hour // and so does this
	knownRounds  = 192                // that a relay is known for, for Guard
	mostKnown    = 8 * 24 * time.Hour // and so does this
)

// bar is how high flags hang: relative to the relays that run, so that a young or slow network has guards
// too (DIRECTORY.md, "Flags").
type bar struct {
	fast     uint64        // bandwidth for Fast
	stable   time.Duration // uptime for Stable
	familiar time.Duration // that a Guard is known for
}

// barLocked sets Fast at the slowest eighth, and the times a round below the medians: relays that came
// together stay together, though one was tested a moment later.
func (r *roster) barLocked(now time.Time) bar {
	var speeds []uint64
	var uptimes, ages []time.Duration
	for _, m := range r.members {
		if m.running {
			speeds = append(speeds, m.speed())
			uptimes = append(uptimes, now.Sub(m.since))
			ages = append(ages, now.Sub(m.added))
		}
	}
	if len(speeds) == 0 {
		return bar{}
	}
	slices.Sort(speeds)
	round := time.Duration(r.network.Params.Round)
	return bar{
		fast:     min(speeds[len(speeds)/8], fastEnough),
		stable:   min(lowerMedian(uptimes)-round, stableRounds*round, mostStable),
		familiar: min(lowerMedian(ages)-round, knownRounds*round, mostKnown),
	}
}

// flags returns what this authority says of a relay that it tested.
func (b bar) flags(m *member, now time.Time) netdoc.Flags {
	if !m.running {
		return 0
	}
	flags := netdoc.Running
	if m.descriptor.Policy.IsExit() {
		flags |= netdoc.Exit
	}
	if m.speed() >= b.fast {
		flags |= netdoc.Fast
	}
	if now.Sub(m.since) >= b.stable {
		flags |= netdoc.Stable
	}
	if flags.Has(netdoc.Fast|netdoc.Stable) && now.Sub(m.added) >= b.familiar {
		flags |= netdoc.Guard
	}
	return flags
}

// warnings returns the negative flags of a relay, whether it runs or not.
func (r *roster) warnings(id wire.ID) netdoc.Flags {
	if r.gate.badExit(id) {
		return netdoc.BadExit
	}
	return 0
}
