package config

import "time"

// Process is what every long-running process is told.
type Process struct {
	AdminAddr    string        `help:"Address of metrics, health and pprof. Never public: it tells and does everything. Empty: none." default:"${admin_addr}" placeholder:"HOST:PORT"`
	DrainTimeout time.Duration `help:"How long a stopping process may take, after --drain-delay; 2s are allowed in any case. Longer spreads the clients' return; shorter makes it a stampede." default:"30s"`
	DrainDelay   time.Duration `help:"How long a stopping process goes on as before after /readyz became false, for the balancer to notice: its check's interval times the failures it wants. Shorter sends newcomers to a closed door; longer delays every restart." default:"0s"`
	ShedPercent  int           `help:"Share of the memory limit (the cgroup's, or the machine's) in percent from which a gateway refuses new connections and an API keeps none open between requests. Higher risks the kernel ending the process." default:"85"`
	LogLevel     string        `help:"Least severe level that is logged: debug, info, warn, error." default:"info" enum:"debug,info,warn,error"`
	LogFormat    string        `help:"Form of log lines: json for machines, text for people." default:"${log_format}" enum:"json,text"`

	TraceEndpoint string  `help:"URL of an OpenTelemetry collector (OTLP over HTTP, http://localhost:4318 for instance) that is told what time requests and messages took. Empty: nobody is." placeholder:"URL"`
	TraceSample   float64 `help:"Share of requests and messages that are traced, 0 to 1; the same in all processes. More costs processor time and the collector's disk; less finds rare slowness later." default:"0.01"`
}

// Redis is how Redis is reached. All processes of a deployment share it.
type Redis struct {
	URL            string        `name:"redis" help:"Where Redis is: redis://[user:password@]host:port/db, redis+sentinel://host:port,host:port/master/db, redis+cluster://host:port,host:port; rediss… for TLS.${redis_note}" default:"${redis_url}" placeholder:"URL"`
	RedisFile      string        `help:"File with the URL, when it holds a password: flags are visible to other users of the host. It goes before --redis." placeholder:"FILE" type:"path"`
	RedisCA        string        `name:"redis-ca" help:"PEM file of the authorities that Redis's certificate may be signed by, for a rediss URL; like the certificate's files it is read for each connection. Empty: the system's." placeholder:"FILE" type:"path"`
	RedisCert      string        `help:"PEM file of the certificate that is shown to Redis, with --redis-key, where it asks for one." placeholder:"FILE" type:"path"`
	RedisKey       string        `help:"PEM file of that certificate's key." placeholder:"FILE" type:"path"`
	Partitions     int           `help:"Number of partitions the keys are spread over. Fixed for a deployment; kept in Redis and compared at start. Fewer limits how many Redis nodes can share the load; more costs canaries and links." default:"256"`
	RedisTimeout   time.Duration `help:"How long a command may take. Longer holds senders while Redis is slow; shorter turns slowness into 503." default:"3s"`
	MinReplicasAck int           `help:"Replicas that must confirm a write before it is acknowledged (WAIT). 0: the primary's word suffices, and its failover may lose acknowledged messages. More costs a round trip to the replicas." default:"0"`
	ReplicaTimeout time.Duration `help:"How long --min-replicas-ack is waited for before the send is answered with an error." default:"1s"`
}

// Secret is how tokens are signed and checked with a shared secret (HS256).
type Secret struct {
	JWTSecret     string `name:"jwt-secret" help:"Shared secret of HS256 tokens, at least 32 bytes. Flags are visible to other users of the host: prefer --jwt-secret-file." placeholder:"SECRET"`
	JWTSecretFile string `name:"jwt-secret-file" help:"File with the shared secret; a newline at its end is not part of it." placeholder:"FILE" type:"path"`
}

// Auth is who is let in. At least one of secret, key file and JWKS is needed.
type Auth struct {
	Secret      `embed:""`
	JWTKeyFile  string        `name:"jwt-key-file" help:"PEM file of public keys (RS256, ES256, EdDSA) that tokens may be signed with, eight of each kind at most." placeholder:"FILE" type:"path"`
	JWKSURL     string        `name:"jwks-url" help:"Where the issuer publishes its public keys." placeholder:"URL"`
	JWKSRefresh time.Duration `name:"jwks-refresh" help:"How often the issuer is asked for its keys, by each process, with If-None-Match. Longer lets a key that was withdrawn, and the sockets it opened, live longer, and a new one be refused longer; shorter asks more of the issuer." default:"2s"`
	JWTIssuer   string        `name:"jwt-issuer" help:"Required iss of a token. Empty: not checked." placeholder:"ISS"`
	JWTAudience []string      `name:"jwt-audience" help:"Accepted aud of a token, one of them. Empty: not checked." placeholder:"AUD"`
}

// Origins is which web pages may use the API and the gateway from a browser.
type Origins struct {
	Origins []string `help:"Origins (scheme://host[:port], exact) of pages that may connect from a browser; * for any.${origins_note} Clients that send no Origin are no browsers and always may." placeholder:"ORIGIN"`
}
