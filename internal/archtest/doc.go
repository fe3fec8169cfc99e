// Package archtest holds the rules of who may import whom, as a test: one
// direction, cmd → internal/app → {api, gateway, loadtest} → internal/chat →
// protocol, and each outside library in one place.
package archtest
