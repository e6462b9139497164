package relay

import (
	"time"

	"torproxy/wire"
	"torproxy/wire/link"
)

// software names the implementation in the descriptor.
const software = "torproxy"

// Every bound of a relay stands here, with what happens when it is reached.
const (
	createTimeout   = 10 * time.Second // to send a whole CREATE: then the stream is reset
	extendTimeout   = 5 * time.Second  // to reach the next relay: then status "next unreachable"
	answerTimeout   = 40 * time.Second // for the next relay's CREATED: then status "next timeout"
	closeTimeout    = 30 * time.Second // for the client to close after an error CREATED
	stallTimeout    = 2 * time.Minute  // of a blocked write: both ends of a circuit always drain it, so the peer is gone or hostile
	stallNotice     = 10 * time.Second // after which a blocked write counts as one: a circuit of 7 KiB/s moves its windows more often
	circuitLifetime = 24 * time.Hour   // a passing relay's keys stay the same for all of a circuit's life

	maxCircuits = 32768 // on one relay: beyond it, status "overloaded"
	maxExits    = 8192  // connections to destinations: beyond it, END "resource limit"
	maxLookups  = 8192  // streams of kind resolve: beyond it, END "resource limit"

	// What an authority may have echoed to measure the relay, and how many of them at a time; beyond it,
	// END "resource limit".
	echoBytes = 8 << 20
	echoTime  = 30 * time.Second
	maxEchoes = 4

	// unreadBudget bounds what destinations that do not read leave in memory, all circuits together;
	// beyond it the stream that holds the most is ended.
	unreadBudget = 512 << 20

	// stalledBudget bounds what circuits whose cells nobody takes leave in memory, each counted with all that
	// its window allows; beyond it the one that has been stalled longest is reset.
	stalledBudget = 512 << 20
	maxStalled    = stalledBudget / link.MaxQueued

	replayEntries = 1 << 20 // CREATEs remembered per onion key: full is reset "overloaded", never an eviction

	peelQueue    = 1024            // circuits that may wait to be peeled: beyond it, reset "overloaded"
	peelDeadline = 2 * time.Second // that one may wait: then reset "overloaded"

	// A client address (IPv4 /32, IPv6 /64) and a link may begin so many circuits a second, and so many
	// at once; beyond it, reset "overloaded". A circuit that the next hop resets is charged failedCost
	// times, since it may be a probe of that hop's limits.
	clientRate, clientBurst = 100, 500
	linkRate, linkBurst     = 1000, 4000
	clientCircuits          = 4096 // of one client address that stand at once; beyond it, reset "overloaded"
	failedCost              = 5
	maxLimiters             = 65536 // addresses remembered; the table starts anew beyond it

	resolveTimeout = 10 * time.Second // of one lookup
	dialTimeout    = 15 * time.Second // of a connection, lookups included
	maxAddresses   = 4                // of one name that are tried

	// The delays of RFC 8305, section 8: how long IPv4 addresses wait for IPv6 ones, and an attempt for
	// the one before it.
	resolutionDelay = 50 * time.Millisecond
	attemptDelay    = 250 * time.Millisecond

	familyWait = time.Second // that the addresses of one family wait to be told with those of the other

	machineLife = time.Minute // of what is known of this machine's addresses

	nameLife   = 60 * time.Second // of an answer, whatever the resolver said, and what the client is told
	missLife   = 10 * time.Second // of the answer that a name does not exist
	maxNames   = 64               // answers kept for a circuit; beyond it, the oldest goes
	maxAnswers = 16               // addresses of a family, or names of an address, that are taken
	maxKept    = 1 << 18          // answers kept for all circuits; beyond it, none is

	// A client that has gone leaves its last bytes; the destination gets so long to take them.
	lingerTimeout = 30 * time.Second

	// Kind http.
	requestTimeout  = 30 * time.Second // for the request's head to come; then END "time-out"
	replyTimeout    = 5 * time.Minute  // for the reply's head to begin and end, which is how long browsers wait; then END "time-out"
	continueTimeout = time.Second      // that a body waits for 100; then it goes without
	quietTimeout    = 5 * time.Minute  // without a byte in either direction; then the connection is closed
	maxRequestHead  = 32 << 10         // bytes of a request's head; beyond it, END "unsupported"
	maxHeads        = 4096             // requests of all circuits whose heads are on their way; beyond it, END "resource limit"
	maxReplyHead    = 64 << 10         // bytes of a reply's head; beyond it, END "connection reset"
	maxTrailer      = 4 << 10          // bytes of the fields behind a body; as for heads
	maxCircuitHeads = 64               // the same, of one circuit
	maxFields       = 256              // lines of a request's head; beyond it, END "unsupported"
	maxMethod       = 32               // letters of a method; beyond it, END "unsupported"
	maxInterim      = 16               // 1xx replies to a request; beyond it, END "connection reset"
	maxIdle         = 8                // connections of a circuit kept for its next request; beyond it, the oldest is closed
	idleTimeout     = 30 * time.Second // that one is kept
	maxOpenLinks    = 8                // links to open of one reply; the others are not marked
	maxOpenLink     = 2048             // bytes of one; a longer one is not marked
	maxURIList      = 16 << 10         // bytes of a list of links; a longer one is only passed on

	// The links of a page.
	maxPageLinks   = wire.MaxPushes   // of one page that are opened, those of its stylesheets included; the others are the browser's
	maxFetches     = 32               // requests for a page's links whose replies have not begun; the others wait their turn
	maxBodies      = 6                // of its replies that are sent at a time, so that what is urgent is not one of many; the others wait their turn
	bodyPatience   = 2 * time.Second  // that one waits; then it goes beside those that do not get on
	maxLevels      = 3                // of links: the page's, its stylesheets', and those of stylesheets that these import; what is further down is the browser's
	maxLooked      = 1 << 20          // bytes of a page, or a stylesheet, that are looked at, decoded; links behind them are not opened
	maxPushedReply = 1 << 20          // bytes of one reply, if it says how many: what a client holds of one that it has not asked for; a larger one is not pushed
	maxPushedBytes = 8 << 20          // of one page's links together; then no more are pushed
	pushTimeout    = 10 * time.Second // for a link's reply to begin: a browser has asked itself by then; END "time-out"
)
