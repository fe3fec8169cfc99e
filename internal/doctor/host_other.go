//go:build !linux

package doctor

// readProcess has nothing to ask: Linux is the production platform.
func (h *Host) readProcess() {}
