//go:build !unix

package durable

const openFlags = 0

// syncDir does nothing: a directory cannot be synced here.
func syncDir(string) error { return nil }
