package netdoc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"torproxy/wire"
)

// The fields that several documents share: how they are checked, and the wire form of addresses.

const maxTime = 253402300799999 // Unix milliseconds: the end of the year 9999

// The public keys of small order, with the sign bit cleared: anyone can make signatures for these. Their
// other spellings, with a y coordinate of p or more, fall to checkID's last rule.
var smallOrder = [...]wire.ID{
	{},
	{0: 1},
	{0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
	{0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
		0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05},
	{0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
		0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a},
}

// checkID refuses the zero ID, keys of small order, and the second spelling that a few keys have (a
// y coordinate of p or more, p = 2^255 - 19). That it is a point at all shows when it signs.
func checkID(id wire.ID) error {
	if id.IsZero() {
		return errors.New("the zero ID")
	}
	id[31] &= 0x7f
	for _, weak := range smallOrder {
		if id == weak {
			return errors.New("an ID of small order")
		}
	}
	if id[31] != 0x7f || id[0] < 0xed {
		return nil
	}
	if bytes.Count(id[1:31], []byte{0xff}) < 30 {
		return nil
	}
	return errors.New("an ID that is not reduced")
}

func checkTime(ms int64) error {
	if ms < 1 || ms > maxTime {
		return fmt.Errorf("time %d outside 1 to %d milliseconds", ms, int64(maxTime))
	}
	return nil
}

func checkBandwidth(n uint64) error {
	if n > MaxBandwidth {
		return fmt.Errorf("%d bytes per second are above the bound %d", n, uint64(MaxBandwidth))
	}
	return nil
}

// checkName wants 1 to max letters, digits and hyphens.
func checkName(s string, max int) error {
	if len(s) < 1 || len(s) > max {
		return fmt.Errorf("%d bytes in place of 1 to %d", len(s), max)
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-':
		default:
			return fmt.Errorf("%.80q has other characters than letters, digits and hyphens", s)
		}
	}
	return nil
}

func checkNickname(s string) error { return checkName(s, MaxNickname) }

// checkAddress wants an address that a relay can be dialled at. Private and loopback addresses pass:
// whether a network admits them is its authorities' business.
func checkAddress(a netip.AddrPort) error {
	addr := a.Addr()
	switch {
	case !addr.IsValid():
		return errors.New("no address")
	case a.Port() == 0:
		return errors.New("port 0")
	case addr.Zone() != "":
		return errors.New("an address with a zone")
	case addr.Is4In6():
		return errors.New("an IPv4-mapped address")
	case addr.IsUnspecified():
		return errors.New("the unspecified address")
	case addr.IsMulticast():
		return errors.New("a multicast address")
	case addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return errors.New("the broadcast address")
	}
	return nil
}

// checkAddresses wants 1 to MaxAddresses good addresses, all different.
func checkAddresses(list []netip.AddrPort) error {
	if len(list) < 1 || len(list) > MaxAddresses {
		return fmt.Errorf("%d in place of 1 to %d", len(list), MaxAddresses)
	}
	for i, a := range list {
		if err := checkAddress(a); err != nil {
			return err
		}
		if slices.Contains(list[:i], a) {
			return errors.New("one address twice")
		}
	}
	return nil
}

// checkFamily wants at most MaxFamily ascending IDs, self not among them.
func checkFamily(self wire.ID, family []wire.ID) error {
	if len(family) > MaxFamily {
		return fmt.Errorf("%d members are more than %d", len(family), MaxFamily)
	}
	if !ascending(family, CompareIDs) {
		return errors.New("members out of order, or one twice")
	}
	for _, id := range family {
		if err := checkID(id); err != nil {
			return err
		}
		if id == self {
			return errors.New("the relay itself")
		}
	}
	return nil
}

// ascending reports whether each element is strictly greater than the one before.
func ascending[E any](list []E, compare func(a, b E) int) bool {
	for i := 1; i < len(list); i++ {
		if compare(list[i-1], list[i]) >= 0 {
			return false
		}
	}
	return true
}

// appendAddresses gives the wire form: address bytes, then the port, big-endian.
func appendAddresses(list []netip.AddrPort) [][]byte {
	out := make([][]byte, len(list))
	for i, a := range list {
		out[i] = binary.BigEndian.AppendUint16(a.Addr().AsSlice(), a.Port())
	}
	return out
}

// parseAddresses reads what appendAddresses wrote and checks it.
func parseAddresses(raw [][]byte) ([]netip.AddrPort, error) {
	if len(raw) > MaxAddresses {
		return nil, fmt.Errorf("%d in place of 1 to %d", len(raw), MaxAddresses)
	}
	out := make([]netip.AddrPort, len(raw))
	for i, b := range raw {
		if len(b) != 6 && len(b) != 18 {
			return nil, fmt.Errorf("an address of %d bytes", len(b))
		}
		addr, _ := netip.AddrFromSlice(b[:len(b)-2])
		out[i] = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[len(b)-2:]))
	}
	return out, checkAddresses(out)
}

// field names the field in which err was found.
func field(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

// first returns the first error of a list.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
