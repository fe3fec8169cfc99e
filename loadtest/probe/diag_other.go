//go:build !linux

package probe

import "errors"

func diagnose(int, int, int) ([]socket, error) { return nil, errors.ErrUnsupported }
