package applier

// Limits. They decide outcomes, so they belong to the wire version and never
// change within it.
const (
	MaxEntry   = 1 << 20 // bytes of an entry
	MaxRewrap  = 1 << 18 // bytes of an entry that rewraps keys
	MaxBatch   = 1 << 14 // rows of the registry in a bootstrap
	MaxMembers = 1 << 14 // members, and nodes with evidence, in a destroy

	MaxKeys       = 1 << 14 // keys in a state, destroyed ones included
	MaxWriters    = 1 << 16 // rows of the registry in a state
	MaxGone       = 1 << 14 // nodes that are gone
	MaxBackups    = 1 << 10 // registered backups
	MaxBackupKeys = 1 << 18 // keys that they need, counted once for each backup
	MaxContainers = 1 << 25 // bytes of all containers in a state

	// MaxWrap1 bounds a wrap of generation 1, in bytes.
	MaxWrap1 = 4096
)
