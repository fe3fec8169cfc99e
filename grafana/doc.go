// Package grafana is the dashboards as code: what each panel asks Prometheus and
// why one looks at it. The JSON in dashboards/ is written from it
// (`go test ./grafana -update`) and checked in, for Grafana's provisioning.
//
// Rules (recording and alerts) are Prometheus's own YAML, in rules/. Every query
// here and there is asked of a real Prometheus in the tests of
// test/observability, every metric is described in docs/metrics.md, every alert
// in docs/runbooks.md.
package grafana
