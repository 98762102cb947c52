package kek

import "os"

// NewAES makes a KEK of given bytes.
var NewAES = newAES

// AsUser reads a file as if the process belonged to this user.
func AsUser(uid int) FileOption { return func(c *fileConfig) { c.euid = uid } }

// Opened runs between the opening of a file and its checks.
func Opened(f func(*os.File)) FileOption { return func(c *fileConfig) { c.opened = f } }
