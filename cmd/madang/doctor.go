package main

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/madang-chat/madang/internal/config"
	"github.com/madang-chat/madang/internal/doctor"
)

// doctorCommand is `madang doctor`.
type doctorCommand struct {
	config.Doctor
}

// errUnfit is the exit code's reason: what is wrong has been printed.
var errUnfit = errors.New("this host or Redis is not fit: see the errors above")

// Run looks and reports. It fails when there are errors, and with --strict when
// there are warnings.
func (c *doctorCommand) Run(ctx context.Context, stdout io.Writer) error {
	if err := c.Validate(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	report, err := doctor.Examine(ctx, os.DirFS("/"), c.Doctor)
	if err != nil {
		return err
	}
	if c.JSON {
		err = report.WriteJSON(stdout)
	} else {
		err = report.WriteText(stdout)
	}
	if err != nil {
		return err
	}
	if worst := report.Worst(); worst == doctor.Error || c.Strict && worst == doctor.Warning {
		return errUnfit
	}
	return nil
}
