// Package fleetnet tests a deployment as it stands in a data centre: each process
// on a host of its own, HAProxy before them, Sentinel behind them. Hosts are
// network namespaces on a switch that is one too; nothing outside them is
// touched, and they go with the test. It needs root and iproute2, and has only
// tests.
package fleetnet
