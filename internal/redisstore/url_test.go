package redisstore

import (
	"reflect"
	"strings"
	"testing"
)

func TestURLs(t *testing.T) {
	for in, want := range map[string]target{
		"redis://h":                             {addrs: []string{"h:6379"}},
		"redis://h:1/3":                         {addrs: []string{"h:1"}, db: 3},
		"rediss://:p%40ss@h:1":                  {tls: true, addrs: []string{"h:1"}, password: "p@ss"},
		"redis://u:p:q@[::1]:7":                 {addrs: []string{"[::1]:7"}, user: "u", password: "p:q"},
		"redis+sentinel://a,b:2/main":           {kind: sentinel, addrs: []string{"a:26379", "b:2"}, master: "main"},
		"rediss+sentinel://u:p@a:1/main/2":      {kind: sentinel, tls: true, addrs: []string{"a:1"}, master: "main", db: 2, user: "u", password: "p"},
		"redis+cluster://a:1,b:2,c:3":           {kind: cluster, addrs: []string{"a:1", "b:2", "c:3"}},
		"rediss+cluster://:secret@[fe80::1]:1/": {kind: cluster, tls: true, addrs: []string{"[fe80::1]:1"}, password: "secret"},
	} {
		got, err := parseURL(in)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
}

func TestBadURLsNameTheFaultAndKeepThePassword(t *testing.T) {
	for in, want := range map[string]string{
		"localhost:6379":                    `"://"`,
		"http://:hunter2@h":                 "scheme",
		"redis+magic://:hunter2@h":          "scheme",
		"redis+://:hunter2@h":               "scheme",
		"redis://:hunter2@":                 "host",
		"redis://:hunter2@h:0":              "port",
		"redis://:hunter2@h:x":              "port",
		"redis://:hunter2@h/x":              "database",
		"redis://:hunter2@h/-1":             "database",
		"redis://:hunter2%zz@h":             "percent",
		"redis://:hunter2@a:1,b:2":          "several hosts",
		"redis://:hunter2@h?x=1":            `"?x"`,
		"redis://h?password=hunter2":        `"?password"`,
		"redis+sentinel://:hunter2@h":       "master",
		"redis+cluster://:hunter2@h/1":      "database 0",
		"redis+cluster://:hunter2@a:1,,b:2": "host",
		"redis://:hunter2@::1":              "brackets",
	} {
		_, err := parseURL(in)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", in, err)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error tells the password: %v", in, err)
		}
	}
}
