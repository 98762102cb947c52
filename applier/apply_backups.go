package applier

import (
	"slices"

	"github.com/atrestdb/atrest/key"
)

func (t *transition) backupAdd(e BackupAdd) error {
	i, found := t.next.findBackup(e.Backup)
	switch {
	case found && slices.Equal(t.next.backups[i].Keys, e.Keys):
		return ErrDuplicate
	case found:
		return t.rejectf(ErrBackupExists, 0, 0, "backup %s", e.Backup)
	case len(t.next.backups) == MaxBackups:
		return t.rejectf(ErrLimit, 0, 0, "%d backups", MaxBackups)
	case t.next.needed+len(e.Keys) > MaxBackupKeys:
		return t.rejectf(ErrLimit, 0, 0, "%d keys that backups need", MaxBackupKeys)
	}
	for _, id := range e.Keys {
		if k, ok := t.next.Key(id); !ok {
			return t.reject(ErrUnknownKey, id, 0)
		} else if k.State == key.Destroyed {
			return t.reject(ErrKeyDestroyed, id, 0)
		}
	}
	t.next.backups = slices.Insert(slices.Clone(t.next.backups), i, Backup{ID: e.Backup, Keys: e.Keys, Index: t.index})
	t.next.needed += len(e.Keys)
	return nil
}

func (t *transition) backupForget(e BackupForget) error {
	i, found := t.next.findBackup(e.Backup)
	if !found {
		return ErrDuplicate
	}
	t.next.needed -= len(t.next.backups[i].Keys)
	t.next.backups = slices.Delete(slices.Clone(t.next.backups), i, i+1)
	return nil
}

func (b Backup) needs(id key.ID) bool {
	_, ok := slices.BinarySearch(b.Keys, id)
	return ok
}
