package guard

import "time"

// The numbers of the algorithm; GUARDS.md gives the reason of each and Tor's value. Where a comment says
// nothing else, the value is Tor's.
const (
	minListed  = 20 // guards of the sample that are listed, as far as the network has so many
	maxSample  = 60 // guards in the sample, whatever the network
	maxPercent = 20 // of the network's guards that may be in the sample; but minListed always may

	primaries = 3

	lifetime          = 120 * day // in the sample, for those that are not confirmed
	confirmedLifetime = 60 * day  // since confirmation, at least
	unlistedLifetime  = 20 * day  // without being listed

	day = 24 * time.Hour

	// Dates are put back by a random part of these, so that they do not tell when something was done.
	blurAdded    = lifetime / 10
	blurUnlisted = unlistedLifetime / 5
)

const (
	primaryRetry    = 30 * time.Second // least time to the next attempt
	primaryRetryMax = 6 * time.Hour
	otherRetry      = 10 * time.Minute
	otherRetryMax   = 36 * time.Hour

	exploreAlone = 5 * time.Second  // for one exploration, before another may begin; ours
	exploreBlock = 15 * time.Second // that an exploration of a better guard holds a circuit up
	waitLifetime = 10 * time.Minute // of a circuit that waits for a better guard to fail

	silentLimit = 5                // builds without an answer that make a failure, half as many as exits at most,
	silentLeast = 2                // and at least; ours
	keyPatience = 20 * time.Second // for the onion key of a primary; ours (Tor's has no end)
)

// When the network seems to be down; all ours.
const (
	patience    = 6               // guards that may fail after one has answered: the primaries, and as many again
	onlineLasts = 2 * time.Minute // after a directory server has answered, however many fail

	roundMin = time.Second // from one attempt at all primaries to the next
	roundMax = 30 * time.Second

	walkRounds = 1                // before the first attempt at another guard
	walkMin    = 30 * time.Second // from that to the next
	walkMax    = time.Hour
)
