// Package archtest holds the rules of the repository as tests: who imports whom,
// what the root module depends on, what is linked into what, which words stay
// out, and that no exported value prints key bytes. It has no code of its own.
//
// A test that fails here names the rule. Where a change is meant, the table in the
// test is the place to say so.
package archtest
