package dirauth

import (
	"sync/atomic"

	"torproxy/wire/directory"
)

// Stats is what an authority counts for its operator. Nothing in it tells of a client, and nothing of one
// relay. All counts begin with the process and only rise, but those under Now.
type Stats struct {
	Now struct {
		Known, Running int // relays, and those of them that answered their latest test
	}

	Consensuses uint64 // rounds in which this authority made a consensus that a quorum has signed
	Failed      uint64 // rounds in which it made none

	// Words of each kind that this authority said, took from others, and refused; in a round in which
	// everybody speaks and listens, Heard rises by the number of the others for each kind.
	Said, Heard, Refused map[Word]uint64
	Proofs               uint64 // against authorities that said two different words in one round

	Answered, Silent     uint64                      // tests of relays, by their result
	Measured, Unmeasured uint64                      // measurements of relays, by whether there is a result
	Registrations        map[directory.Result]uint64 // descriptors that relays brought
}

// tally of a part of the authority, written by that part.
type (
	voterCounts struct {
		consensuses, failed, proofs atomic.Uint64
		said, heard, refused        [words]atomic.Uint64
		registered                  [3]atomic.Uint64 // in the order of results
	}
	proberCounts struct{ answered, silent atomic.Uint64 }
	meterCounts  struct{ measured, unmeasured atomic.Uint64 }
)

// results are what becomes of a registration.
var results = [...]directory.Result{directory.Added, directory.Known, directory.Refused}

// registration counts what became of a descriptor.
func (c *voterCounts) registration(r directory.Result) {
	for i, known := range results {
		if r == known {
			c.registered[i].Add(1)
		}
	}
}

// took counts a word that another authority brought.
func (c *voterCounts) took(w Word, err error) {
	if err == nil {
		c.heard[w].Add(1)
	} else {
		c.refused[w].Add(1)
	}
}

// Stats returns the counts of this moment. Each is exact; together they are not of one instant.
func (a *Authority) Stats() Stats {
	v := &a.voter.counts
	s := Stats{
		Consensuses: v.consensuses.Load(), Failed: v.failed.Load(), Proofs: v.proofs.Load(),
		Said: map[Word]uint64{}, Heard: map[Word]uint64{}, Refused: map[Word]uint64{},
		Answered: a.prober.counts.answered.Load(), Silent: a.prober.counts.silent.Load(),
		Measured: a.meter.counts.measured.Load(), Unmeasured: a.meter.counts.unmeasured.Load(),
		Registrations: map[directory.Result]uint64{},
	}
	s.Now.Running, s.Now.Known = a.Relays()
	for w := range words {
		s.Said[w], s.Heard[w], s.Refused[w] = v.said[w].Load(), v.heard[w].Load(), v.refused[w].Load()
	}
	for i, r := range results {
		s.Registrations[r] = v.registered[i].Load()
	}
	return s
}
