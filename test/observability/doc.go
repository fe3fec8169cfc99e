// Package observability tests what operators look at: every query of every
// dashboard and rule is asked of a real Prometheus that scrapes a fleet under
// load; alerts fire when they should; documents and code name the same metrics
// and alerts. It has only tests.
package observability
