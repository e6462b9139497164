package dirauth

import (
	"slices"
	"time"

	"torproxy/wire"
)

// join makes a relay a member, with what the store knew of it.
func (r *roster) join(id wire.ID, now time.Time) *member {
	m := &member{added: now, came: now}
	if past, known := r.past[id]; known {
		delete(r.past, id)
		m.past = past
		if added := time.UnixMilli(past.Added); added.Before(now) {
			m.added = added
		}
		if past.Answered > 0 {
			m.answered = time.UnixMilli(past.Answered)
		}
		m.bandwidth.values = past.Measured[max(len(past.Measured)-valuesKept, 0):]
		if past.MeasuredAt > 0 && len(past.Measured) > 0 {
			m.bandwidth.at = time.UnixMilli(past.MeasuredAt)
			m.bandwidth.next = m.bandwidth.at.Add(r.plan.interval)
			if latest := now.Add(r.plan.interval); m.bandwidth.next.After(latest) { // of a clock that was fast
				m.bandwidth.next = latest
			}
		}
	}
	r.members[id] = m
	return m
}

// sinceBefore returns since when a relay runs, or does not, when a test at now says so and the one before
// did not, or there was none. The first test after this authority was down goes on where the last one
// before ended: what nobody looked at counts for nothing, neither for the relay nor against it.
func (m *member) sinceBefore(running bool, now time.Time) time.Time {
	if m.tested || m.past.Seen == 0 || m.past.Running != running {
		return now
	}
	lasted := time.Duration(m.past.Seen-m.past.Since) * time.Millisecond
	return now.Add(-max(lasted, 0))
}

// save keeps what was learnt of the relays.
func (r *roster) save() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	records := make([]Record, 0, len(r.members))
	for id, m := range r.members {
		if m.tested {
			records = append(records, m.record(id))
		}
	}
	if len(records) == 0 {
		return nil
	}
	return r.store.SaveRecords(records)
}

func (m *member) record(id wire.ID) Record {
	record := Record{
		ID: id, Added: m.added.UnixMilli(), Running: m.running, Since: m.since.UnixMilli(), Seen: m.seen.UnixMilli(),
		Measured: slices.Clone(m.bandwidth.values),
	}
	if !m.answered.IsZero() {
		record.Answered = m.answered.UnixMilli()
	}
	if !m.bandwidth.at.IsZero() {
		record.MeasuredAt = m.bandwidth.at.UnixMilli()
	}
	return record
}
