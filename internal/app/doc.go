// Package app puts processes together from their parts: it is the only package
// that knows all of them. A role (API, Gateway, Dev) is built by New…, which
// starts nothing; Start returns when it serves; Stop undoes it in reverse order
// and is bounded. cmd/madang gives it settings and signals, tests start it on
// port 0.
package app
