package netdoc

import (
	"fmt"
	"strings"
)

// Flags is what authorities say of a relay: a set of bits.
type Flags uint32

// The flags. All others are refused in documents.
const (
	Running Flags = 1 << iota // answered a real circuit handshake
	Exit                      // its policy lets traffic out
	Fast                      // among the faster relays
	Stable                    // has been running for long
	Guard                     // fit to be the first hop
	BadExit                   // must not be the last hop

	knownFlags = Running | Exit | Fast | Stable | Guard | BadExit
)

var flagNames = [...]string{"Running", "Exit", "Fast", "Stable", "Guard", "BadExit"}

// Has reports whether all of want are set.
func (f Flags) Has(want Flags) bool { return f&want == want }

// Names lists the flags that are set, in the order of their bits.
func (f Flags) Names() []string {
	names := make([]string, 0, len(flagNames))
	for i, name := range flagNames {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// String joins Names with commas; bits without a name are shown as a number.
func (f Flags) String() string {
	names := f.Names()
	if rest := f &^ knownFlags; rest != 0 {
		names = append(names, fmt.Sprintf("%#x", uint32(rest)))
	}
	return strings.Join(names, ",")
}

func (f Flags) check() error {
	if rest := f &^ knownFlags; rest != 0 {
		return fmt.Errorf("unknown flag %#x", uint32(rest))
	}
	return nil
}
