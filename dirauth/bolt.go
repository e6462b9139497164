package dirauth

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"torproxy/wire"
)

// The file's buckets. Numbers are big-endian, so that keys sort by them.
var (
	bucketWords       = []byte("words")       // word 1 -> valid-after 8 | document
	bucketDescriptors = []byte("descriptors") // relay ID -> document
	bucketRecords     = []byte("records")     // relay ID -> Record, CBOR
	bucketDocuments   = []byte("documents")   // "consensus" -> document
	bucketProofs      = []byte("proofs")      // number 8, rising -> Proof, CBOR
	bucketFormat      = []byte("format")      // "version" -> 1 byte

	keyConsensus = []byte("consensus")
	keyVersion   = []byte("version")
	boltVersion  = []byte{1}
)

// lockTimeout is how long OpenStore waits for another process to let go of the file: one that is just
// ending does so at once.
const lockTimeout = time.Second

// FileStore is a Store in one file, a bbolt database. Each change is one transaction, on stable storage
// when its method returns nil; a process that is killed at any moment leaves the state before or after a
// change, never one between. The file stays as large as its content was at the most: one word of each
// kind, one consensus, a descriptor and a record of each relay that the authority knows, and maxProofs
// proofs of each authority.
type FileStore struct {
	db *bbolt.DB
}

// OpenStore opens or makes the store in a file, which only its owner can read. One process can have it
// open at a time; a second one gets an error within a second or so. The caller closes it.
func OpenStore(path string) (*FileStore, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("dirauth: store %s is in use by another process", path)
	}
	if err != nil {
		return nil, fmt.Errorf("dirauth: store %s: %w", path, err)
	}
	if err := db.Update(makeBuckets); err != nil {
		db.Close()
		return nil, fmt.Errorf("dirauth: store %s: %w", path, err)
	}
	if err := syncDirectory(filepath.Dir(path)); err != nil { // a new file is in its directory for good
		db.Close()
		return nil, fmt.Errorf("dirauth: store %s: %w", path, err)
	}
	return &FileStore{db}, nil
}

func makeBuckets(tx *bbolt.Tx) error {
	for _, name := range [][]byte{bucketWords, bucketDescriptors, bucketRecords, bucketDocuments, bucketProofs, bucketFormat} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	format := tx.Bucket(bucketFormat)
	switch v := format.Get(keyVersion); {
	case v == nil:
		return format.Put(keyVersion, boltVersion)
	case !slices.Equal(v, boltVersion):
		return fmt.Errorf("its format is version %d, this program's %d", v, boltVersion)
	}
	return nil
}

// Close closes the file. The store must not be used any more.
func (s *FileStore) Close() error { return s.db.Close() }

// Say implements Store.
func (s *FileStore) Say(w Word, validAfter time.Time, raw []byte) (said []byte, err error) {
	if w >= words {
		return nil, fmt.Errorf("dirauth: %v is not a word", w)
	}
	err = s.db.Update(func(tx *bbolt.Tx) error {
		bucket, key, at := tx.Bucket(bucketWords), []byte{byte(w)}, validAfter.UnixMilli()
		if last := bucket.Get(key); len(last) >= 8 {
			switch before := int64(binary.BigEndian.Uint64(last)); {
			case at < before:
				return ErrOldRound
			case at == before:
				said = slices.Clone(last[8:])
				return nil
			}
		}
		said = raw
		return bucket.Put(key, append(binary.BigEndian.AppendUint64(nil, uint64(at)), raw...))
	})
	if err != nil {
		return nil, err
	}
	return said, nil
}

// SaveDescriptor implements Store.
func (s *FileStore) SaveDescriptor(id wire.ID, raw []byte) error {
	return s.put(bucketDescriptors, id[:], raw)
}

// Descriptors implements Store.
func (s *FileStore) Descriptors() ([][]byte, error) {
	var all [][]byte
	err := s.each(bucketDescriptors, func(_, v []byte) error {
		all = append(all, slices.Clone(v))
		return nil
	})
	return all, err
}

// SaveRecords implements Store.
func (s *FileStore) SaveRecords(records []Record) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(bucketRecords)
		for i := range records {
			v, err := cbor.Marshal(&records[i])
			if err != nil {
				return err
			}
			if err := bucket.Put(records[i].ID[:], v); err != nil {
				return err
			}
		}
		return nil
	})
}

// Records implements Store.
func (s *FileStore) Records() ([]Record, error) {
	var all []Record
	err := s.each(bucketRecords, func(_, v []byte) error {
		var r Record
		if err := cbor.Unmarshal(v, &r); err != nil {
			return err
		}
		all = append(all, r)
		return nil
	})
	return all, err
}

// Forget implements Store.
func (s *FileStore) Forget(ids ...wire.ID) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		for _, id := range ids {
			for _, bucket := range [][]byte{bucketDescriptors, bucketRecords} {
				if err := tx.Bucket(bucket).Delete(id[:]); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// SaveConsensus implements Store.
func (s *FileStore) SaveConsensus(raw []byte) error {
	return s.put(bucketDocuments, keyConsensus, raw)
}

// Consensus implements Store.
func (s *FileStore) Consensus() (raw []byte, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		raw = slices.Clone(tx.Bucket(bucketDocuments).Get(keyConsensus))
		return nil
	})
	return raw, err
}

// SaveProof implements Store.
func (s *FileStore) SaveProof(p Proof) error {
	v, err := cbor.Marshal(&p)
	if err != nil {
		return err
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(bucketProofs)
		number, err := bucket.NextSequence()
		if err != nil {
			return err
		}
		if err := bucket.Put(binary.BigEndian.AppendUint64(nil, number), v); err != nil {
			return err
		}
		return dropOldProofs(bucket, p.Authority)
	})
}

// dropOldProofs deletes the oldest proofs against an authority that are more than maxProofs.
func dropOldProofs(bucket *bbolt.Bucket, against wire.ID) error {
	var keys [][]byte
	err := bucket.ForEach(func(k, v []byte) error {
		var p Proof
		if err := cbor.Unmarshal(v, &p); err != nil {
			return err
		}
		if p.Authority == against {
			keys = append(keys, slices.Clone(k))
		}
		return nil
	})
	for ; err == nil && len(keys) > maxProofs; keys = keys[1:] {
		err = bucket.Delete(keys[0])
	}
	return err
}

// Proofs implements Store.
func (s *FileStore) Proofs() ([]Proof, error) {
	var all []Proof
	err := s.each(bucketProofs, func(_, v []byte) error {
		var p Proof
		if err := cbor.Unmarshal(v, &p); err != nil {
			return err
		}
		all = append(all, p)
		return nil
	})
	return all, err
}

// put is a transaction of one change.
func (s *FileStore) put(bucket, key, value []byte) error {
	return s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucket).Put(key, value) })
}

// each calls f with every key and value of a bucket, ascending; they are valid during the call only.
func (s *FileStore) each(bucket []byte, f func(k, v []byte) error) error {
	return s.db.View(func(tx *bbolt.Tx) error { return tx.Bucket(bucket).ForEach(f) })
}
