package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/madang-chat/madang/internal/app"
	"github.com/madang-chat/madang/loadtest"
	"github.com/madang-chat/madang/loadtest/agents"
)

// agentCommand runs workers for a coordinator on another machine.
type agentCommand struct {
	Coordinator     string   `help:"The program that runs the scenario, by its --coordinator-addr." required:"" placeholder:"HOST:PORT" group:"Agents"`
	AgentSecretFile string   `help:"File with the secret that both share." type:"path" placeholder:"FILE" group:"Agents"`
	AgentName       string   `help:"In the report. Empty: the host's name." group:"Agents"`
	Source          []string `help:"Addresses to connect from. Empty: many of 127.0.0.0/8 on the loopback, else the kernel's choice." placeholder:"IP,..." group:"Connections"`
	Once            bool     `help:"End after one run, with a failure if the coordinator went away during it. Otherwise wait for the next." group:"Agents"`
}

// Run serves one run after the other.
func (c *agentCommand) Run(ctx context.Context) error {
	secret, err := readAgentSecret(c.AgentSecretFile)
	if err != nil {
		return err
	}
	say := func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	for {
		err := loadtest.Serve(ctx, agents.Agent{
			Coordinator: c.Coordinator, Secret: secret, Name: c.AgentName, Version: app.Version(), Sources: c.Source, Say: say,
		})
		switch {
		case ctx.Err() != nil:
			return nil // Ctrl-C is how an agent is meant to end
		case c.Once || errors.Is(err, agents.ErrRefused) && !errors.Is(err, agents.ErrLost):
			return err
		case err != nil:
			say("%v", err)
		default:
			say("the run is over")
		}
	}
}

// readAgentSecret reads the secret of coordinator and agents.
func readAgentSecret(path string) ([]byte, error) {
	if path == "" {
		return nil, errors.New("--agent-secret-file must be given: coordinator and agents know each other by it (openssl rand -hex 32 > FILE makes one)")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--agent-secret-file: %w", err)
	}
	b = bytes.TrimSpace(b)
	if len(b) < agents.MinSecretBytes {
		return nil, fmt.Errorf("--agent-secret-file: the secret in %s has %d bytes; it must have at least %d", path, len(b), agents.MinSecretBytes)
	}
	return b, nil
}
