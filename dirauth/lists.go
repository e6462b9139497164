package dirauth

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"torproxy/wire"
)

// The operator's two files: text, a relay in a line, empty lines and those that begin with # are comments.
//
//	allow:     ID [# comment]
//	reject:    ID [reason]            the relay is not admitted, and not voted for
//	           badexit ID [reason]    the relay gets the flag BadExit
const (
	maxListBytes   = 4 << 20
	maxReason      = 200 // bytes
	keywordBadExit = "badexit"
)

// Rejection is an authority's operator's word against a relay.
type Rejection struct {
	ID      wire.ID
	BadExit bool   // it may stay, but must not be the last hop
	Reason  string // one line, which the relay is told; may be empty
}

// line is how a Rejection stands in the file.
func (r Rejection) line() string {
	words := []string{r.ID.String()}
	if r.BadExit {
		words = []string{keywordBadExit, r.ID.String()}
	}
	if r.Reason != "" {
		words = append(words, r.Reason)
	}
	return strings.Join(words, " ")
}

// Reject writes a Rejection into the file that Config.Rejections names, in place of what stood there about
// the relay; everything else stays as it was. The file is made if there is none, and replaced at once: a
// running authority reads the old or the new one. A file that cannot be read as a whole is not touched.
// Two processes must not call it for one file at the same time: the later one's word alone might stay.
func Reject(path string, r Rejection) error {
	if r.ID.IsZero() {
		return errors.New("dirauth: no relay named to be rejected")
	}
	if err := checkReason(r.Reason); err != nil {
		return fmt.Errorf("dirauth: %w", err)
	}
	text, err := readList(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("dirauth: %w", err)
	}
	var kept bytes.Buffer
	err = eachLine(text, func(line string) error {
		old, err := parseRejection(line)
		if err == nil && (old == nil || old.ID != r.ID) {
			fmt.Fprintln(&kept, line)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("dirauth: %s: %w", path, err)
	}
	fmt.Fprintln(&kept, r.line())
	if kept.Len() > maxListBytes {
		return fmt.Errorf("dirauth: %s would be larger than %d bytes", path, maxListBytes)
	}
	// The operator may be another user than the authority, which must be able to read it.
	if err := writeFile(path, kept.Bytes(), 0o644); err != nil {
		return fmt.Errorf("dirauth: write %s: %w", path, err)
	}
	return nil
}

// readAllowed reads the file of relays that may register.
func readAllowed(path string) (map[wire.ID]bool, error) {
	text, err := readList(path)
	if err != nil {
		return nil, err
	}
	allowed := map[wire.ID]bool{}
	err = eachLine(text, func(line string) error {
		id, rest, ok, err := cutID(line)
		switch {
		case err != nil || !ok:
			return err
		case rest != "" && !strings.HasPrefix(rest, "#"):
			return fmt.Errorf("%.40q behind the relay's ID; a comment begins with #", rest)
		}
		allowed[id] = true
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return allowed, nil
}

// readRejections reads the file of rejections: those that keep a relay out, and those that make it a bad
// exit. No file is an empty one.
func readRejections(path string) (out map[wire.ID]Rejection, badExits map[wire.ID]bool, err error) {
	text, err := readList(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	out, badExits = map[wire.ID]Rejection{}, map[wire.ID]bool{}
	err = eachLine(text, func(line string) error {
		r, err := parseRejection(line)
		switch {
		case err != nil || r == nil:
			return err
		case r.BadExit:
			badExits[r.ID] = true
		default:
			out[r.ID] = *r
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return out, badExits, nil
}

// readList reads a file whose size is bounded.
func readList(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxListBytes+1))
	if err == nil && len(text) > maxListBytes {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxListBytes)
	}
	return text, err
}

// eachLine calls f with each line, without its end, and names the line that f does not understand.
func eachLine(text []byte, f func(line string) error) error {
	number := 0
	for line := range bytes.Lines(text) {
		number++
		if err := f(strings.TrimRight(string(line), "\r\n")); err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
	}
	return nil
}

// parseRejection reads a line of the file of rejections; nil if there is nothing in it.
func parseRejection(line string) (*Rejection, error) {
	rest, badExit := strings.CutPrefix(strings.TrimSpace(line), keywordBadExit+" ")
	id, reason, ok, err := cutID(rest)
	switch {
	case err != nil:
		return nil, err
	case !ok && badExit:
		return nil, errors.New("no relay's ID behind " + keywordBadExit)
	case !ok:
		return nil, nil
	}
	return &Rejection{ID: id, BadExit: badExit, Reason: reason}, checkReason(reason)
}

// cutID reads the ID at the beginning of a line; ok is false if the line is empty or a comment.
func cutID(line string) (id wire.ID, rest string, ok bool, err error) {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return wire.ID{}, "", false, nil
	}
	word, rest := line, ""
	if i := strings.IndexFunc(line, unicode.IsSpace); i >= 0 {
		word, rest = line[:i], strings.TrimSpace(line[i:])
	}
	id, err = wire.ParseID(word)
	if err == nil && id.IsZero() {
		err = errors.New("the zero ID names no relay")
	}
	return id, rest, err == nil, err
}

func checkReason(reason string) error {
	if len(reason) > maxReason {
		return fmt.Errorf("a reason of %d bytes is longer than %d", len(reason), maxReason)
	}
	if !utf8.ValidString(reason) || strings.ContainsFunc(reason, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return errors.New("a reason is printable text in one line")
	}
	return nil
}
