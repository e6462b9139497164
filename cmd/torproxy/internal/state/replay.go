package state

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"runtime"
)

// The replay file, numbers in big-endian:
//
//	header   "torproxy replay 1\n" 18 | oldest hour kept 4 | checksum 4
//	record   onion key digest, its beginning 8 | hour 4 | enc's digest 16 | checksum 4        and so on
//
// A record is appended by one write. One cut short at the end was never acknowledged, so its packet did
// not go on.
const (
	replayName  = "replay"
	replayMagic = "torproxy replay 1\n"
	headerSize  = len(replayMagic) + 8
	recordSize  = 32
	keyPrefix   = 8

	// maxRecords bounds the file to 128 MiB. A relay's keys refuse packets long before: two keys remember
	// a million packets each, and a minute passes until expired ones leave the file too.
	maxRecords = 4 << 20
)

var (
	errReplayFull = errors.New("the replay file is full")
	castagnoli    = crc32.MakeTable(crc32.Castagnoli)
)

// record is one packet that was peeled.
type record struct {
	key    [keyPrefix]byte
	hour   uint32
	digest [16]byte
}

func (r *record) encode() []byte {
	b := make([]byte, 0, recordSize)
	b = append(b, r.key[:]...)
	b = binary.BigEndian.AppendUint32(b, r.hour)
	b = append(b, r.digest[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeRecord reads recordSize bytes; false if they are damaged.
func decodeRecord(b []byte) (r record, ok bool) {
	n := recordSize - 4
	copy(r.key[:], b)
	r.hour = binary.BigEndian.Uint32(b[8:])
	copy(r.digest[:], b[12:])
	return r, binary.BigEndian.Uint32(b[n:]) == crc32.Checksum(b[:n], castagnoli)
}

func encodeHeader(oldest uint32) []byte {
	b := binary.BigEndian.AppendUint32([]byte(replayMagic), oldest)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeHeader(b []byte) (oldest uint32, ok bool) {
	n := headerSize - 4
	if string(b[:len(replayMagic)]) != replayMagic {
		return 0, false
	}
	return binary.BigEndian.Uint32(b[len(replayMagic):]), binary.BigEndian.Uint32(b[n:]) == crc32.Checksum(b[:n], castagnoli)
}

// newSuffix ends the name of a file that takes another's place.
const newSuffix = ".new"

// replayFile is open for appending. It is not for concurrent use.
type replayFile struct {
	name   string
	file   *os.File
	size   int64  // of whole records, with the header
	oldest uint32 // hour among the records; meaningless without any
	broken error  // it ends in something that is no record
}

// createReplay makes an empty file, in place of what is there.
func createReplay(name string, oldest uint32) (*replayFile, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(encodeHeader(oldest)); err != nil {
		f.Close()
		return nil, err
	}
	return &replayFile{name: name, file: f, size: int64(headerSize)}, nil
}

// openReplay opens a file and reads all of it. The error says why it does not hold what it should.
func openReplay(name string, now uint32) (*replayFile, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return nil, err
	}
	r := &replayFile{name: name, file: f}
	if err := r.load(now); err != nil {
		f.Close()
		return nil, err
	}
	return r, nil
}

func (r *replayFile) load(now uint32) error {
	header := make([]byte, headerSize)
	if _, err := r.file.ReadAt(header, 0); err != nil {
		return fmt.Errorf("%s is damaged: %w", replayName, err)
	}
	switch oldest, ok := decodeHeader(header); {
	case !ok:
		return fmt.Errorf("%s is damaged", replayName)
	case oldest+1 > now:
		return errors.New("the clock was set back by an hour or more: packets that could come again are forgotten")
	}
	info, err := r.file.Stat()
	if err != nil {
		return err
	}
	records := (info.Size() - int64(headerSize)) / recordSize
	if records > maxRecords {
		return fmt.Errorf("%s is too large", replayName)
	}
	r.size = int64(headerSize) + records*recordSize
	if err := r.each(func(rec record) { r.note(rec.hour) }); err != nil {
		return err
	}
	return r.file.Truncate(r.size)
}

// note keeps oldest.
func (r *replayFile) note(hour uint32) {
	if r.oldest == 0 || hour < r.oldest {
		r.oldest = hour
	}
}

// each calls f with every record.
func (r *replayFile) each(f func(record)) error {
	n := r.size - int64(headerSize)
	records := bufio.NewReaderSize(io.NewSectionReader(r.file, int64(headerSize), n), 1<<16)
	b := make([]byte, recordSize)
	for ; n > 0; n -= recordSize {
		if _, err := io.ReadFull(records, b); err != nil {
			return err
		}
		rec, ok := decodeRecord(b)
		if !ok {
			return fmt.Errorf("%s is damaged", replayName)
		}
		f(rec)
	}
	return nil
}

func (r *replayFile) append(rec record) error {
	if r.broken != nil {
		return r.broken
	}
	if r.size >= int64(headerSize)+maxRecords*recordSize {
		return errReplayFull
	}
	n, err := r.file.Write(rec.encode())
	if err != nil {
		if n > 0 {
			r.broken = r.file.Truncate(r.size)
		}
		return err
	}
	r.size += recordSize
	r.note(rec.hour)
	return nil
}

// expire writes the file anew without the records of hours before oldest, if there are any, and without
// those that keep does not want.
func (r *replayFile) expire(oldest uint32, keep func(record) bool) error {
	if r.size == int64(headerSize) || r.oldest >= oldest {
		return nil
	}
	name := r.name + newSuffix
	next, err := createReplay(name, oldest)
	if err != nil {
		return err
	}
	next.name = r.name
	w := bufio.NewWriterSize(next.file, 1<<16)
	err = r.each(func(rec record) {
		if rec.hour >= oldest && keep(rec) {
			w.Write(rec.encode())
			next.size += recordSize
			next.note(rec.hour)
		}
	})
	if err = errors.Join(err, w.Flush()); err == nil {
		err = r.become(next, name)
	}
	if err != nil {
		next.file.Close()
		os.Remove(name)
	}
	return err
}

// become puts another file, open as next, in the place of this one. Both are closed for it, since Windows
// renames nothing that is open.
func (r *replayFile) become(next *replayFile, name string) error {
	if runtime.GOOS != "windows" {
		// The file stays open: to open it again could fail, and without it the relay serves nobody.
		if err := os.Rename(name, r.name); err != nil {
			return err
		}
		r.file.Close()
		*r = *next
		return nil
	}
	r.file.Close()
	next.file.Close()
	renamed := os.Rename(name, r.name)
	file, err := os.OpenFile(r.name, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		r.broken = err
		return errors.Join(renamed, err)
	}
	if renamed == nil {
		*r = *next
	}
	r.file = file
	return renamed
}

// close puts what was written on stable storage. Nothing can be appended afterwards.
func (r *replayFile) close() error {
	if r.broken == nil {
		r.broken = os.ErrClosed
		return errors.Join(r.file.Sync(), r.file.Close())
	}
	err := r.broken
	r.file.Close()
	return err
}
