package redisstore

import (
	"crypto/sha1"
	"embed"
	"encoding/hex"
)

//go:embed script/*.lua
var scriptFiles embed.FS

// script is one of script/*.lua; its contract stands at its top.
type script struct {
	text, sha string
	argName   any // "evalsha" and sha as arguments, made once
	argSHA    any
}

var (
	sendScript    = loadScript("send")
	logScript     = loadScript("log")
	membersScript = loadScript("members")
	createScript  = loadScript("create")
	putScript     = loadScript("put")
	removeScript  = loadScript("remove")
	indexScript   = loadScript("index")
	canaryScript  = loadScript("canary")
	schemaScript  = loadScript("schema")
	outboxScript  = loadScript("outbox")
	paceScript    = loadScript("pace")
)

func loadScript(name string) *script {
	text, err := scriptFiles.ReadFile("script/" + name + ".lua")
	if err != nil {
		panic("BUG: " + err.Error())
	}
	sum := sha1.Sum(text) // by SHA-1 Redis knows scripts
	s := &script{text: string(text), sha: hex.EncodeToString(sum[:])}
	s.argName, s.argSHA = "evalsha", s.sha
	return s
}
