package dirauth

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"torproxy/wire"
)

// TestKilledAtAnyMoment kills a process again and again while it writes to its store, and checks that
// the store then holds exactly what was acknowledged, or that and the change that was under way.
func TestKilledAtAnyMoment(t *testing.T) {
	kills := 60
	if testing.Short() {
		kills = 10
	}
	rnd := rand.New(rand.NewPCG(3, 3))
	path := filepath.Join(t.TempDir(), "store")
	model, done := newWriter(NewMemoryStore()), 0 // the changes 0 to done-1 were made
	during := 0
	for range kills {
		acknowledged := killed(t, path, done, 1+rnd.IntN(40))
		for ; done < acknowledged; done++ {
			model.change(t, done)
		}
		s := openStore(t, path)
		got := newWriter(s)
		if !got.equal(t, model, done) {
			model.change(t, done)
			done++
			during++
			if !got.equal(t, model, done) {
				t.Fatalf("after %d changes the store holds something else", done)
			}
		}
		checkFile(t, s)
		s.Close()
	}
	t.Logf("%d kills, %d changes acknowledged, %d more were there before they were acknowledged", kills, done-during, during)
}

func checkFile(t *testing.T, s *FileStore) {
	t.Helper()
	err := s.db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			t.Errorf("the file is damaged: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// killed lets a child write from change number first, kills it after it has acknowledged n of them, and
// returns the number behind the last that it acknowledged.
func killed(t *testing.T, path string, first, n int) int {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childStore+"="+path, childFirst+"="+strconv.Itoa(first))
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	next := first
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if got := lines.Text(); got != strconv.Itoa(next) {
			t.Errorf("the child acknowledges %q, want %d", got, next)
			break
		}
		if next++; next-first == n {
			child.Process.Kill() // what it has written to the pipe meanwhile still comes
		}
	}
	child.Process.Kill()
	child.Wait()
	if next-first < n {
		t.Fatalf("the child made %d changes of %d", next-first, n)
	}
	return next
}

// What a child is told.
const (
	childStore = "TORPROXY_TEST_STORE" // the path of its store
	childFirst = "TORPROXY_TEST_FIRST" // the number of its first change
)

// runChild writes until it is killed, a line for each change that was acknowledged.
func runChild(path string) {
	first, err := strconv.Atoi(os.Getenv(childFirst))
	if err != nil {
		panic(err)
	}
	s, err := OpenStore(path)
	if err != nil {
		panic(err)
	}
	w := newWriter(s)
	for i := first; ; i++ {
		if err := w.try(i); err != nil {
			panic(err)
		}
		fmt.Println(i)
	}
}

// writer makes changes, of which each follows from its number.
type writer struct{ Store }

func newWriter(s Store) *writer { return &writer{s} }

func (w *writer) change(t *testing.T, i int) {
	t.Helper()
	if err := w.try(i); err != nil {
		t.Fatal(err)
	}
}

// try makes change number i: words, documents from a few bytes to many pages, and what drops old ones.
func (w *writer) try(i int) error {
	rnd := rand.New(rand.NewPCG(uint64(i), 1))
	raw := make([]byte, 8, 8+64<<10)
	binary.BigEndian.PutUint64(raw, uint64(i))
	raw = raw[:8+rnd.IntN(1<<rnd.IntN(17))]
	id := wire.ID{0: byte(rnd.IntN(20)), 31: 1}
	switch i % 7 {
	case 0, 1:
		_, err := w.Say(Word(i%7), roundOf(i), raw)
		return err
	case 2:
		return w.SaveConsensus(raw)
	case 3:
		return w.SaveProof(Proof{Authority: wire.ID{byte(rnd.IntN(3))}, ValidAfter: int64(i), First: raw, Second: raw})
	case 4:
		return w.SaveRecords([]Record{
			{ID: id, Added: int64(i), Measured: []uint64{rnd.Uint64()}},
			{ID: wire.ID{0: id[0] + 1, 31: 1}, Seen: int64(i)},
		})
	case 5:
		return w.SaveDescriptor(id, raw)
	default:
		if rnd.IntN(3) > 0 {
			return w.SaveDescriptor(id, raw)
		}
		return w.Forget(id, wire.ID{0: id[0] + 1, 31: 1})
	}
}

// roundOf returns the round of change i's word.
func roundOf(i int) time.Time { return validAfter.Add(time.Duration(i) * time.Second) }

// equal reports whether two stores hold the same after n changes: a word for the round of the last one
// that was said gives that one back.
func (w *writer) equal(t *testing.T, other *writer, n int) bool {
	for word := range WordSignature {
		last := n - 1
		for last >= 0 && last%7 != int(word) {
			last--
		}
		if last < 0 {
			continue
		}
		// An earlier round is refused if the last word is there, and would be recorded if it is not.
		if _, err := w.Say(word, roundOf(last-1), nil); err == nil {
			return false
		}
		got, err1 := w.Say(word, roundOf(last), []byte("another"))
		want, err2 := other.Say(word, roundOf(last), []byte("another"))
		if err1 != nil || err2 != nil || !slices.Equal(got, want) {
			return false
		}
	}
	return contentOf(t, w).equal(contentOf(t, other))
}

func TestStoreIsForOneProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	openStore(t, path)
	if s, err := OpenStore(path); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("opened twice: %v, %v", s, err)
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestStoreRefusesWhatItIsNot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	if err := os.WriteFile(path, []byte(strings.Repeat("not a store\n", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a text file: %v", err)
	}
	other := filepath.Join(t.TempDir(), "store")
	s := openStore(t, other)
	if err := s.put(bucketFormat, keyVersion, []byte{2}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := OpenStore(other); err == nil || !strings.Contains(err.Error(), "version") {
		t.Errorf("another version: %v", err)
	}
}

// BenchmarkFileStore is what a full authority writes: a vote on all relays that it can hold, their records,
// and one descriptor.
func BenchmarkFileStore(b *testing.B) {
	s, err := OpenStore(filepath.Join(b.TempDir(), "store"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	records := make([]Record, maxMembers)
	for i := range records {
		records[i] = Record{ID: wire.ID{byte(i), byte(i >> 8), 1}, Added: 1e12, Running: true, Since: 1e12, Seen: 1e12, Answered: 1e12,
			Measured: []uint64{1 << 20, 1 << 21, 1 << 22, 1 << 20, 1 << 20}, MeasuredAt: 1e12}
	}
	vote := make([]byte, 100*maxMembers)
	done := 0
	for name, f := range map[string]func(i int) error{
		"vote":       func(i int) error { _, err := s.Say(WordVote, roundOf(i), vote); return err },
		"records":    func(int) error { return s.SaveRecords(records) },
		"descriptor": func(i int) error { return s.SaveDescriptor(wire.ID{byte(i), 1}, vote[:1600]) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := f(done); err != nil {
					b.Fatal(err)
				}
				done++
			}
		})
	}
}
