package applier

import (
	"slices"

	"github.com/atrestdb/atrest/internal/planted"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// register is the one way to an epoch of one's own.
func (t *transition) register(e Registration) error {
	k, ok := t.next.Key(e.Key)
	switch {
	case !ok:
		return t.reject(ErrUnknownKey, e.Key, e.Node)
	case k.State == key.Stopped:
		return t.reject(ErrKeyStopped, e.Key, e.Node)
	case k.State == key.Destroyed:
		return t.reject(ErrKeyDestroyed, e.Key, e.Node)
	}
	row, at, found, err := t.place(e.Key, e.Node)
	if err != nil {
		return err
	}
	if !found {
		t.registered = RegisteredNew
		return t.insertRow(at, Writer{Key: e.Key, Node: e.Node, First: e.Epoch, Last: e.Epoch, Load: e.Load})
	}
	switch {
	case e.Epoch < row.Last:
		return t.rejectf(ErrStaleEpoch, e.Key, e.Node, "got %d, want above %d", e.Epoch, row.Last)
	case e.Epoch == row.Last && (t.next.gen == Generation1 || e.Load == row.Load):
		return ErrDuplicate
	case e.Epoch == row.Last && !planted.Has(planted.SameEpochAccepted):
		return t.rejectf(ErrSameEpoch, e.Key, e.Node, "epoch %d", e.Epoch)
	}
	row.Last, row.Load = e.Epoch, e.Load
	t.registered = RegisteredAdvanced
	t.setRow(at, row)
	return nil
}

// reserve gives a node its place among the writers of a key, or raises its epoch.
// An epoch below the one that is there means nothing: it claims nothing either.
func (t *transition) reserve(r WriterRow) error {
	row, at, found, err := t.place(r.Key, r.Node)
	switch {
	case err != nil:
		return err
	case !found:
		return t.insertRow(at, Writer{Key: r.Key, Node: r.Node, First: r.Epoch, Last: r.Epoch})
	case r.Epoch > row.Last:
		row.Last, row.Load = r.Epoch, LoadID{}
		t.setRow(at, row)
	}
	return nil
}

// place finds a node's row among the writers of a key, or where it would be.
func (t *transition) place(id key.ID, n nodeid.ID) (row Writer, at int, found bool, err error) {
	switch {
	case n == 0:
		return row, 0, false, t.reject(ErrNodeZero, id, 0)
	case t.next.Gone(n):
		return row, 0, false, t.reject(ErrWriterGone, id, n)
	}
	at, found = t.next.findWriter(id, n.Node16())
	if found {
		if row = t.next.writers[at]; row.Node != n {
			return row, 0, false, t.rejectf(ErrCollision, id, n, "%d is node %s", n.Node16(), row.Node)
		}
	}
	return row, at, found, nil
}

func (t *transition) insertRow(at int, w Writer) error {
	if len(t.next.writers) == MaxWriters {
		return t.rejectf(ErrLimit, w.Key, w.Node, "%d rows of the registry", MaxWriters)
	}
	t.ownWriters(1)
	t.next.writers = slices.Insert(t.next.writers, at, w)
	t.writers = append(t.writers, w)
	return nil
}

func (t *transition) setRow(at int, w Writer) {
	t.ownWriters(0)
	t.next.writers[at] = w
	if last := len(t.writers) - 1; last >= 0 && compareWriters(t.writers[last], w) == 0 {
		t.writers[last] = w // two rows of one node in a bootstrap
		return
	}
	t.writers = append(t.writers, w)
}

func (t *transition) ownWriters(more int) {
	if t.writersShared {
		own := make([]Writer, 0, len(t.next.writers)+more)
		t.next.writers, t.writersShared = append(own, t.next.writers...), false
	}
}

func (t *transition) dropRows(id key.ID) {
	t.ownWriters(0)
	t.next.writers = slices.DeleteFunc(t.next.writers, func(w Writer) bool { return w.Key == id })
}

func (t *transition) writerGone(e WriterGone) error {
	if e.Node == 0 {
		return t.reject(ErrNodeZero, 0, 0)
	}
	i, found := slices.BinarySearch(t.next.gone, e.Node)
	switch {
	case found:
		return ErrDuplicate
	case len(t.next.gone) == MaxGone:
		return t.rejectf(ErrLimit, 0, e.Node, "%d nodes that are gone", MaxGone)
	}
	t.next.gone = slices.Insert(slices.Clone(t.next.gone), i, e.Node)
	return nil
}
