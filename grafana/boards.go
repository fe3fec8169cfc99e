package grafana

import (
	"fmt"
	"strings"
)

// Dashboards are all pages, by the name of their file.
func Dashboards() map[string]Dashboard {
	return map[string]Dashboard{
		"overview":       overview(),
		"gateways":       gateways(),
		"api":            apiBoard(),
		"redis-delivery": redisAndDelivery(),
		"presence":       presence(),
		"load-test":      loadTest(),
	}
}

// sel is a metric of the chosen instances, with further matchers.
func sel(metric string, matchers ...string) string {
	return metric + "{" + strings.Join(append([]string{`instance=~"$instance"`}, matchers...), ", ") + "}"
}

// rate is how fast a counter grows per second.
func rate(metric string, matchers ...string) string {
	return "rate(" + sel(metric, matchers...) + "[$__rate_interval])"
}

func sum(expr string) string            { return "sum(" + expr + ")" }
func sumBy(label, expr string) string   { return "sum by (" + label + ") (" + expr + ")" }
func ratio(part, whole string) string   { return part + " / " + whole }
func perSecondOf(metric string) string  { return sum(rate(metric)) }
func byInstance(metric string) string   { return sumBy("instance", rate(metric)) }
func one(expr, legend string) []Query   { return []Query{{Expr: expr, Legend: legend}} }
func quiet(expr, legend string) []Query { return []Query{{Expr: expr, Legend: legend, Quiet: true}} }

// quantile is of a histogram, over the chosen instances, by a label or by none.
func quantile(q float64, metric, by string, matchers ...string) string {
	labels := "le"
	if by != "" {
		labels = by + ", le"
	}
	return fmt.Sprintf("histogram_quantile(%g, sum by (%s) (%s))", q, labels, rate(metric+"_bucket", matchers...))
}

// quantiles are the usual three.
func quantiles(metric string, matchers ...string) []Query {
	return []Query{
		{Expr: quantile(0.5, metric, "", matchers...), Legend: "median"},
		{Expr: quantile(0.95, metric, "", matchers...), Legend: "95 %"},
		{Expr: quantile(0.99, metric, "", matchers...), Legend: "99 %"},
	}
}

func overview() Dashboard {
	return Dashboard{
		UID: "madang-overview", Title: "madang / Overview", About: "Is everything all right? Objectives first, then what carries them.",
		Rows: []Row{
			{"Objectives", []Panel{
				{Title: "Sends that succeed (30 days)", Kind: Number, Unit: percent, Good: 0.9995, Bad: 0.999, Width: 6,
					About:   "Objective: 99.95 % of the sends that are ours to answer. Below it: the API page, then Redis.",
					Queries: one(`1 - avg_over_time(madang:send_errors:ratio_rate5m[30d])`, "")},
				{Title: "Delivered within 200 ms (30 days)", Kind: Number, Unit: percent, Good: 0.99, Bad: 0.98, Width: 6,
					About:   "Objective: 99 % from the log to the sockets within 200 ms. Below it: Gateways, then Redis and delivery.",
					Queries: one(`1 - avg_over_time(madang:delivery_slow:ratio_rate5m[30d])`, "")},
				{Title: "Upgrades that succeed (30 days)", Kind: Number, Unit: percent, Good: 0.999, Bad: 0.995, Width: 6,
					About:   "Objective: 99.9 % of the upgrades that are ours to answer (bad tokens and bad requests do not count).",
					Queries: one(`1 - avg_over_time(madang:upgrade_errors:ratio_rate5m[30d])`, "")},
				{Title: "Ready", Kind: Number, Unit: percent, Good: 1, Bad: 0.7, Width: 6,
					About:   "Processes that are ready, of those that are scraped.",
					Queries: one(`sum(madang_ready) / count(up{job=~"madang.*"})`, "")},
				{Title: "How fast error budgets burn", Kind: Graph, Unit: short, Width: 24,
					About: "1 uses the 30-day budget up in exactly 30 days; 14.4 for an hour pages (docs/runbooks.md).",
					Queries: []Query{
						{Expr: `madang:send_errors:ratio_rate5m / 0.0005`, Legend: "sends"},
						{Expr: `madang:delivery_slow:ratio_rate5m / 0.01`, Legend: "deliveries"},
						{Expr: `madang:upgrade_errors:ratio_rate5m / 0.001`, Legend: "upgrades"},
					}},
			}},
			{"Traffic", []Panel{
				{Title: "Connected clients", Kind: Graph, Unit: short, Stack: true, About: "Open sockets of each gateway. A step down is a gateway that went; the others should rise by as much.",
					Queries: one(sumBy("instance", sel("madang_connections", `state="open"`)), "{{instance}}")},
				{Title: "Sends", Kind: Graph, Unit: perSec, About: "By outcome. `limited` are senders held back; `unavailable` and `failed` are ours.",
					Queries: one(sumBy("outcome", rate("madang_sends_total")), "{{outcome}}")},
				{Title: "Deliveries", Kind: Graph, Unit: perSec, About: "Events queued for sockets: a message to 1,000 members is 1,000.",
					Queries: one(byInstance("madang_deliveries_total"), "{{instance}}")},
				{Title: "Send, until answered", Kind: Graph, Unit: seconds, About: "Time from a send to its 201, Redis included.",
					Queries: quantiles("madang_send_duration_seconds", `outcome="accepted"`)},
				{Title: "Delivery, from the log to the last socket", Kind: Graph, Unit: seconds, About: "Age of a message when a loop's last socket has taken it; Redis's clock has milliseconds, and clocks differ.",
					Queries: quantiles("madang_delivery_latency_seconds")},
				{Title: "Clients that come and go", Kind: Graph, Unit: perSec, About: "A burst of both is a storm: a gateway died, or was restarted without a drain.",
					Queries: []Query{
						{Expr: sum(rate("madang_upgrades_total", `outcome="ok"`)), Legend: "came"},
						{Expr: sum(rate("madang_connections_closed_total", `reason!="handshake"`)), Legend: "went"},
					}},
			}},
			{"Processes", []Panel{
				{Title: "CPU", Kind: Graph, Unit: short, About: "Cores used by each process.",
					Queries: one(rate("process_cpu_seconds_total", `job=~"madang.*"`), "{{instance}}")},
				{Title: "Memory", Kind: Graph, Unit: bytesU, About: "Resident memory of each process. The kernel's sockets (about 4 KB each) are not in it, but count for a container's limit.",
					Queries: one(sel("process_resident_memory_bytes", `job=~"madang.*"`), "{{instance}}")},
				{Title: "Log lines missing", Kind: Graph, Unit: perSec, About: "`flood`: too many alike, the log says of what. `slow_reader`: who collects the logs is stuck.",
					Queries: one(sumBy("reason", rate("madang_log_lines_missing_total")), "{{reason}}")},
				{Title: "Spans of traces", Kind: Graph, Unit: perSec, About: "What the collector took (`exported`) and what was dropped: `queue_full`, it is slow; `refused`, it is away or does not want them. Nothing at all while tracing is off.",
					Queries: one(sumBy("outcome", rate("madang_trace_spans_total")), "{{outcome}}")},
				{Title: "What runs", Kind: Table, Unit: short, About: "Two versions are normal during a rolling upgrade, and only then.",
					Queries: one(`count by (version, goversion) (`+sel("madang_build_info")+`)`, "")},
			}},
		},
	}
}

func gateways() Dashboard {
	return Dashboard{
		UID: "madang-gateways", Title: "madang / Gateways", About: "Sockets, event loops, and clients that do not keep up.",
		Rows: []Row{
			{"Connections", []Panel{
				{Title: "Open", Kind: Graph, Unit: short, About: "By gateway. Far apart: the balancer does not balance, or a gateway joined late.",
					Queries: one(sumBy("instance", sel("madang_connections", `state="open"`)), "{{instance}}")},
				{Title: "By transport and state", Kind: Graph, Unit: short, About: "`handshake` that stays high: clients that never finish, or loops that are late.",
					Queries: one(sumBy("transport, state", sel("madang_connections")), "{{transport}} {{state}}")},
				{Title: "Upgrades by outcome", Kind: Graph, Unit: perSec, About: "`unavailable`: the gateway refuses for lack of room or memory. `unauthorized`: tokens; see the issuer and clocks.",
					Queries: one(sumBy("outcome", rate("madang_upgrades_total")), "{{outcome}}")},
				{Title: "Upgrades' time", Kind: Graph, Unit: seconds, About: "From the first byte being awaited to the answer, in steps of 50 ms. It grows when a storm queues, and with slow clients.",
					Queries: []Query{{Expr: quantile(0.99, "madang_upgrade_duration_seconds", ""), Legend: "99 %", Quiet: true}}},
				{Title: "Ends by reason", Kind: Graph, Unit: perSec, About: "`slow`: readers that were cut off. `heartbeat`: networks that died. `drain`, `rebalance`: ours, on purpose.",
					Queries: one(sumBy("reason", rate("madang_connections_closed_total")), "{{reason}}")},
				{Title: "Long polls", Kind: Graph, Unit: perSec, About: "Polls begun. Busy rooms answer them at once; far more than that are clients that ask without waiting.",
					Queries: one(byInstance("madang_polls_total"), "{{instance}}")},
				{Title: "Accepts that failed", Kind: Graph, Unit: perSec, About: "Descriptors ran out: madang doctor.",
					Queries: one(byInstance("madang_accept_failures_total"), "{{instance}}")},
				{Title: "Descriptors used", Kind: Graph, Unit: percent, Max: 1, About: "Of the process's limit. Near 1, clients wait to be accepted.",
					Queries: one(ratio(sel("process_open_fds", `job="madang-gateway"`), sel("process_max_fds", `job="madang-gateway"`)), "{{instance}}")},
			}},
			{"Event loops", []Panel{
				{Title: "Loops' time used", Kind: Graph, Unit: percent, Max: 1, About: "Of all loops of a gateway together. Above 0.8: more gateways, or fewer members per room.",
					Queries: one(sumBy("instance", rate("madang_loop_busy_seconds_total"))+" / on (instance) group_left () "+sel("go_sched_gomaxprocs_threads"), "{{instance}}")},
				{Title: "Longest turn", Kind: Graph, Unit: seconds, About: "How long everything else on a loop had to wait, at worst, since the last scrape.",
					Queries: one(sumBy("instance", sel("madang_loop_lag_seconds")), "{{instance}}")},
				{Title: "Turns", Kind: Graph, Unit: seconds, About: "Time of a turn. Long ones: large rooms on few loops.",
					Queries: quantiles("madang_loop_turn_seconds")},
				{Title: "Hub's time used", Kind: Graph, Unit: percent, Max: 1, About: "The one goroutine between Redis and the loops. Above 0.8 it is the bottleneck: more gateways do not help a message that all of them follow.",
					Queries: one(byInstance("madang_hub_busy_seconds_total"), "{{instance}}")},
				{Title: "Hub's lag", Kind: Graph, Unit: seconds, About: "How long the oldest input of its last turn had waited.",
					Queries: one(sumBy("instance", sel("madang_hub_lag_seconds")), "{{instance}}")},
				{Title: "Queued for the hub", Kind: Graph, Unit: bytesU, About: "When it is full, links are broken and audited: nothing is lost, but late.",
					Queries: []Query{
						{Expr: sumBy("instance", sel("madang_hub_queue_bytes")), Legend: "{{instance}}"},
					}},
			}},
			{"Readers", []Panel{
				{Title: "Behind now", Kind: Graph, Unit: short, About: "Clients that do not read as fast as their rooms write; they catch up from the log.",
					Queries: one(sumBy("instance", sel("madang_readers_behind")), "{{instance}}")},
				{Title: "Became slow", Kind: Graph, Unit: perSec, About: "Many at once: the network, not the clients.",
					Queries: one(byInstance("madang_slow_readers_total"), "{{instance}}")},
				{Title: "Queued for sockets", Kind: Graph, Unit: bytesU, About: "Bytes that wait for clients; what they share counts for each.",
					Queries: one(sumBy("instance", sel("madang_out_queue_bytes")), "{{instance}}")},
				{Title: "Left out, to be caught up", Kind: Graph, Unit: perSec, About: "Room events not queued for slow readers.",
					Queries: one(byInstance("madang_left_out_total"), "{{instance}}")},
				{Title: "Ephemeral events shed", Kind: Graph, Unit: perSec, About: "Typing and the like, dropped before any message would be.",
					Queries: one(byInstance("madang_ephemeral_shed_total"), "{{instance}}")},
				{Title: "Incomplete requests and messages", Kind: Graph, Unit: bytesU, About: "Bytes held of what clients began and did not finish.",
					Queries: one(sumBy("instance", sel("madang_incomplete_bytes")), "{{instance}}")},
			}},
			{"Bytes and system calls", []Panel{
				{Title: "To and from clients", Kind: Graph, Unit: bytesPS, About: "The wire, headers of TCP/IP apart.",
					Queries: []Query{{Expr: perSecondOf("madang_sent_bytes_total"), Legend: "sent"}, {Expr: perSecondOf("madang_received_bytes_total"), Legend: "received"}}},
				{Title: "Frames received, pings sent", Kind: Graph, Unit: perSec, About: "What clients say, and how often they were silent for too long.",
					Queries: []Query{{Expr: perSecondOf("madang_frames_received_total"), Legend: "frames"}, {Expr: perSecondOf("madang_pings_total"), Legend: "pings"}}},
				{Title: "Writes per delivery", Kind: Graph, Unit: short, About: "System calls per event delivered: 1 when quiet, fewer when messages meet. Nothing when nothing is delivered.",
					Queries: one(ratio(perSecondOf("madang_socket_writes_total"), perSecondOf("madang_deliveries_total")), "writes")},
				{Title: "System calls", Kind: Graph, Unit: perSec, About: "`cut short`: sockets whose buffers were full.",
					Queries: []Query{
						{Expr: perSecondOf("madang_socket_reads_total"), Legend: "reads"},
						{Expr: perSecondOf("madang_socket_writes_total"), Legend: "writes"},
						{Expr: perSecondOf("madang_socket_writes_short_total"), Legend: "cut short"},
					}},
				{Title: "Compression", Kind: Graph, Unit: bytesPS, About: "Messages before and after, each once for all who negotiated it. Close together: --no-compression saves the CPU.",
					Queries: []Query{{Expr: perSecondOf("madang_compression_in_bytes_total"), Legend: "before"}, {Expr: perSecondOf("madang_compression_out_bytes_total"), Legend: "after"}}},
				{Title: "Messages compressed", Kind: Graph, Unit: perSec, About: "And the connections that negotiated it.",
					Queries: []Query{{Expr: perSecondOf("madang_messages_compressed_total"), Legend: "messages"}, {Expr: sum(sel("madang_compressed_connections")), Legend: "connections"}}},
				{Title: "Kernel's TCP sockets", Kind: Graph, Unit: short, About: "Of the host's network namespace. `tw` is TIME_WAIT.",
					Queries: one(sumBy("instance, state", sel("madang_kernel_tcp_sockets", `job="madang-gateway"`)), "{{instance}} {{state}}")},
				{Title: "Kernel's TCP buffers", Kind: Graph, Unit: bytesU, About: "Data in all sockets' buffers; net.ipv4.tcp_mem limits it.",
					Queries: one(sumBy("instance", sel("madang_kernel_tcp_buffer_bytes", `job="madang-gateway"`)), "{{instance}}")},
			}},
		},
	}
}

func apiBoard() Dashboard {
	return Dashboard{
		UID: "madang-api", Title: "madang / API", About: "What people send through.",
		Rows: []Row{
			{"Sends", []Panel{
				{Title: "By outcome", Kind: Graph, Unit: perSec, About: "`refused`: the client's doing. `limited`: 429. `unavailable`: Redis does not answer, or not with enough replicas. `failed`: ours.",
					Queries: one(sumBy("outcome", rate("madang_sends_total")), "{{outcome}}")},
				{Title: "Time to 201", Kind: Graph, Unit: seconds, About: "Redis included: compare with the round trips on the page Redis and delivery.",
					Queries: quantiles("madang_send_duration_seconds", `outcome="accepted"`)},
				{Title: "99 % by outcome", Kind: Graph, Unit: seconds, About: "Refusals should be fast; `unavailable` takes the time-out.",
					Queries: one(quantile(0.99, "madang_send_duration_seconds", "outcome"), "{{outcome}}")},
			}},
			{"Requests", []Panel{
				{Title: "By route", Kind: Graph, Unit: perSec, About: "`none`: paths that there are not.",
					Queries: one(sumBy("method, route", rate("madang_http_requests_total")), "{{method}} {{route}}")},
				{Title: "By status", Kind: Graph, Unit: perSec, About: "5xx are ours: the process's log has the request's ID.",
					Queries: one(sumBy("status", rate("madang_http_requests_total")), "{{status}}")},
				{Title: "Errors (5xx)", Kind: Graph, Unit: percent, About: "Share of all requests.",
					Queries: one("("+sum(rate("madang_http_requests_total", `status=~"5.."`))+" or vector(0)) / "+perSecondOf("madang_http_requests_total"), "5xx")},
				{Title: "99 % by route", Kind: Graph, Unit: seconds, Width: 16, About: "Time from a request's head to the end of its answer.",
					Queries: one(quantile(0.99, "madang_http_request_duration_seconds", "method, route"), "{{method}} {{route}}")},
				{Title: "Slowest routes now", Kind: Table, Unit: seconds, About: "By 99 %.",
					Queries: one("topk(10, "+quantile(0.99, "madang_http_request_duration_seconds", "method, route")+")", "")},
			}},
			{"Attachments", []Panel{
				{Title: "Uploads by outcome", Kind: Graph, Unit: perSec, Width: 6, About: "`cut`: the client broke off, or was too slow. `limited`: quotas, or too many at once. `unavailable`: Redis or the files' store does not answer, is full, or all places are taken. Nothing at all where nothing can be attached.",
					Queries: one(sumBy("outcome", rate("madang_uploads_total")), "{{outcome}}")},
				{Title: "Bytes of files", Kind: Graph, Unit: bytesPS, Width: 6, About: "Stored, and sent to clients.",
					Queries: []Query{{Expr: perSecondOf("madang_upload_bytes_total"), Legend: "stored"}, {Expr: perSecondOf("madang_download_bytes_total"), Legend: "sent"}}},
				{Title: "Upload, until stored", Kind: Graph, Unit: seconds, Width: 6, About: "Mostly the clients' lines. All sizes slower at once: the files' store.",
					Queries: quantiles("madang_upload_duration_seconds", `outcome="stored"`)},
				{Title: "Files deleted", Kind: Graph, Unit: perSec, Width: 6, About: "No message named them in time, or their time was over.",
					Queries: quiet(perSecondOf("madang_attachments_swept_total"), "files")},
			}},
			{"Processes", []Panel{
				{Title: "CPU", Kind: Graph, Unit: short, About: "Cores.",
					Queries: one(rate("process_cpu_seconds_total", `job="madang-api"`), "{{instance}}")},
				{Title: "Memory", Kind: Graph, Unit: bytesU, About: "Resident.",
					Queries: one(sel("process_resident_memory_bytes", `job="madang-api"`), "{{instance}}")},
				{Title: "Goroutines", Kind: Graph, Unit: short, About: "One per request under way and a few more. Growing without end: a leak.",
					Queries: one(sel("go_goroutines", `job="madang-api"`), "{{instance}}")},
			}},
		},
	}
}

func redisAndDelivery() Dashboard {
	return Dashboard{
		UID: "madang-redis", Title: "madang / Redis and delivery", About: "The way of a message between API and gateway: commands, links, logs.",
		Rows: []Row{
			{"Commands", []Panel{
				{Title: "Round trips", Kind: Graph, Unit: seconds, About: "99 % of one round trip, which may carry many commands, by lane.",
					Queries: one(quantile(0.99, "madang_redis_round_trip_seconds", "lane"), "{{lane}}")},
				{Title: "Commands per round trip", Kind: Graph, Unit: short, About: "They grow by themselves under load; 1 is a quiet Redis.",
					Queries: one(ratio(sumBy("lane", rate("madang_redis_commands_total")), sumBy("lane", rate("madang_redis_round_trip_seconds_count"))), "{{lane}}")},
				{Title: "Commands", Kind: Graph, Unit: perSec, About: "By lane.",
					Queries: one(sumBy("lane", rate("madang_redis_commands_total")), "{{lane}}")},
				{Title: "Failures", Kind: Graph, Unit: perSec, About: "`network`, `unreachable`: a node is away. `moved`: one that does not take them now: demoted, resharded, with too few replicas. `full`: Redis's memory. `overflow`: too many wait for a node.",
					Queries: quiet(sumBy("reason", rate("madang_redis_command_failures_total")), "{{reason}}")},
				{Title: "Waiting for a pipeline", Kind: Graph, Unit: short, About: "Commands queued in this process. Growing: Redis is slower than what is asked of it.",
					Queries: one(sumBy("instance", sel("madang_redis_queued_commands")), "{{instance}}")},
				{Title: "Connections", Kind: Graph, Unit: short, About: "To Redis, links apart.",
					Queries: one(sumBy("state", sel("madang_redis_pool_connections")), "{{state}}")},
				{Title: "Time waited for a connection", Kind: Graph, Unit: seconds, About: "Per second: 1 is one caller waiting all the time.",
					Queries: one(byInstance("madang_redis_pool_wait_seconds_total"), "{{instance}}")},
				{Title: "Waits and time-outs for a connection", Kind: Graph, Unit: perSec, About: "Time-outs are failed commands.",
					Queries: []Query{{Expr: perSecondOf("madang_redis_pool_waits_total"), Legend: "waits"}, {Expr: perSecondOf("madang_redis_pool_timeouts_total"), Legend: "time-outs"}}},
				{Title: "Connections made", Kind: Graph, Unit: perSec, About: "Many all the time: something between us and Redis cuts idle connections.",
					Queries: one(byInstance("madang_redis_pool_dials_total"), "{{instance}}")},
			}},
			{"Links", []Panel{
				{Title: "Up", Kind: Graph, Unit: short, About: "Subscriber connections of each process: 4 without a Cluster, one per partition with. Fewer: rooms on it are not followed live.",
					Queries: one(sumBy("instance", sel("madang_redis_links_up", `job="madang-gateway"`)), "{{instance}}")},
				{Title: "Canaries", Kind: Graph, Unit: seconds, About: "From a write to its coming back over the link: the path of a message, measured every 2 s. Above 5 s a link counts as dead.",
					Queries: quantiles("madang_redis_canary_seconds")},
				{Title: "Breaks", Kind: Graph, Unit: perSec, About: "Each is re-made and audited; nothing is lost. Many: failovers, or a gateway that reads too slowly for Redis's buffers.",
					Queries: []Query{
						{Expr: byInstance("madang_redis_link_breaks_total"), Legend: "{{instance}}"},
						{Expr: byInstance("madang_hub_links_broken_total"), Legend: "{{instance}} (the hub was full)"},
					}},
			}},
			{"Delivery", []Panel{
				{Title: "From the log to the last socket", Kind: Graph, Unit: seconds, About: "Age of a message when a loop's last socket has taken it.",
					Queries: quantiles("madang_delivery_latency_seconds")},
				{Title: "Gaps filled", Kind: Graph, Unit: perSec, About: "Holes that were filled from the log before anybody saw them.",
					Queries: one(byInstance("madang_gaps_filled_total"), "{{instance}}")},
				{Title: "Gaps told", Kind: Graph, Unit: perSec, About: "Holes that the log could not fill: trimmed, or lost in a failover. Clients page history.",
					Queries: one(byInstance("madang_gaps_told_total"), "{{instance}}")},
				{Title: "Rooms and users followed", Kind: Graph, Unit: short, About: "By all gateways; one that is on three counts three times.",
					Queries: []Query{{Expr: sum(sel("madang_followed_rooms")), Legend: "rooms"}, {Expr: sum(sel("madang_followed_users")), Legend: "users"}, {Expr: sum(sel("madang_attachments")), Legend: "connections × rooms"}}},
				{Title: "Log reads", Kind: Graph, Unit: perSec, About: "`saved`: answered from a room's tail in memory. After a storm, saved should be by far the larger.",
					Queries: []Query{{Expr: perSecondOf("madang_log_reads_total"), Legend: "reads"}, {Expr: perSecondOf("madang_log_reads_saved_total"), Legend: "saved"}}},
				{Title: "Resumes and audits", Kind: Graph, Unit: perSec, About: "Audits compare everything on a link that was re-made.",
					Queries: []Query{{Expr: perSecondOf("madang_resumes_total"), Legend: "resumes"}, {Expr: perSecondOf("madang_audits_total"), Legend: "audits"}}},
				{Title: "Trimmed from logs", Kind: Graph, Unit: perSec, About: "Messages that left their room's log, by why: its limit of count, age or memory. Who was away for longer than that is told a gap.",
					Queries: quiet(sumBy("by", rate("madang_log_trimmed_total")), "{{by}}")},
				{Title: "Length of logs", Kind: Graph, Unit: short, About: "Messages in the logs that are sent to, weighed by how much is sent. Flat at --log-max-len: older ones are trimmed.",
					Queries: []Query{{Expr: quantile(0.5, "madang_log_messages", ""), Legend: "median", Quiet: true}, {Expr: quantile(0.99, "madang_log_messages", ""), Legend: "99 %", Quiet: true}}},
				{Title: "Duplicates", Kind: Graph, Unit: perSec, About: "Publications that were not newer than the room's head: seen after failovers, dropped.",
					Queries: one(byInstance("madang_duplicates_total"), "{{instance}}")},
			}},
		},
	}
}

func presence() Dashboard {
	return Dashboard{
		UID: "madang-presence", Title: "madang / Presence", About: "Who is there, what they look at, and what that costs Redis.",
		Rows: []Row{
			{"People", []Panel{
				{Title: "Users online", Kind: Graph, Unit: short, Stack: true, About: "By gateway; a user with devices on two counts twice.",
					Queries: one(sumBy("instance", sel("madang_online_users")), "{{instance}}")},
				{Title: "Connections per user", Kind: Graph, Unit: short, About: "Devices and tabs.",
					Queries: one(ratio(sum(sel("madang_connections", `state="open"`)), sum(sel("madang_followed_users"))), "connections")},
				{Title: "Rooms per connection", Kind: Graph, Unit: short, About: "Pairs of connection and room, by connection.",
					Queries: one(ratio(sum(sel("madang_attachments")), sum(sel("madang_connections", `state="open"`))), "rooms")},
				{Title: "Heartbeats", Kind: Graph, Unit: perSec, About: "Pings to silent connections. They cost Redis nothing.",
					Queries: one(byInstance("madang_pings_total"), "{{instance}}")},
				{Title: "Heartbeat round trips", Kind: Graph, Unit: seconds, About: "From a ping to the client's next sign of life: the networks in between, in steps of 50 ms.",
					Queries: quantiles("madang_heartbeat_round_trip_seconds")},
				{Title: "Lost by heartbeat", Kind: Graph, Unit: perSec, About: "Clients that were silent after a ping: networks that died.",
					Queries: one(sumBy("instance", rate("madang_connections_closed_total", `reason="heartbeat"`)), "{{instance}}")},
				{Title: "Looking at a room", Kind: Graph, Unit: short, About: "Connections with a focus: the others should be sent a push.",
					Queries: one(sumBy("instance", sel("madang_focused_connections")), "{{instance}}")},
			}},
			{"Presence in Redis", []Panel{
				{Title: "Writes", Kind: Graph, Unit: perSec, About: "`refreshed`: what keeps presences from expiring, about online users / 5 min. `again`: Redis lost its data, or a gateway has a new ID.",
					Queries: []Query{
						{Expr: perSecondOf("madang_presence_writes_total"), Legend: "all"},
						{Expr: perSecondOf("madang_presence_refreshes_total"), Legend: "refreshed"},
						{Expr: perSecondOf("madang_presence_rewrites_total"), Legend: "again"},
					}},
				{Title: "Waiting to be written", Kind: Graph, Unit: short, About: "High after a storm: writes are paced. High all the time: Redis is slow.",
					Queries: one(sumBy("instance", sel("madang_presence_waiting")), "{{instance}}")},
				{Title: "Users who left, entries removed", Kind: Graph, Unit: perSec, About: "`surplus`: entries in Redis that were nobody's.",
					Queries: []Query{{Expr: perSecondOf("madang_presence_leaves_total"), Legend: "left"}, {Expr: perSecondOf("madang_presence_surplus_total"), Legend: "surplus"}}},
				{Title: "Watched", Kind: Graph, Unit: short, About: "Whose presence somebody watches, and by how many.",
					Queries: []Query{{Expr: sum(sel("madang_watched_users")), Legend: "users"}, {Expr: sum(sel("madang_watches")), Legend: "watches"}}},
				{Title: "Changes told", Kind: Graph, Unit: perSec, About: "`waited`: watch lists that changed too often.",
					Queries: []Query{{Expr: perSecondOf("madang_presence_changes_total"), Legend: "told"}, {Expr: perSecondOf("madang_watch_limited_total"), Legend: "waited"}}},
			}},
			{"Typing, receipts, markers", []Panel{
				{Title: "Typing", Kind: Graph, Unit: perSec, About: "`limited`: clients that say it too often.",
					Queries: []Query{{Expr: perSecondOf("madang_typing_total"), Legend: "sent"}, {Expr: perSecondOf("madang_typing_limited_total"), Legend: "limited"}}},
				{Title: "Passed on and left out", Kind: Graph, Unit: perSec, About: "All of it may be left out under load before any message is.",
					Queries: []Query{
						{Expr: perSecondOf("madang_live_events_told_total"), Legend: "passed on"},
						{Expr: perSecondOf("madang_live_events_shed_total"), Legend: "left out for Redis"},
						{Expr: perSecondOf("madang_ephemeral_shed_total"), Legend: "left out for sockets"},
						{Expr: perSecondOf("madang_live_refused_total"), Legend: "not allowed"},
					}},
				{Title: "Markers", Kind: Graph, Unit: perSec, About: "Read and delivered markers; `coalesced` needed no write.",
					Queries: []Query{{Expr: perSecondOf("madang_markers_moved_total"), Legend: "moved"}, {Expr: perSecondOf("madang_markers_coalesced_total"), Legend: "coalesced"}}},
			}},
			{"Fleet", []Panel{
				{Title: "Gateways that live", Kind: Graph, Unit: short, About: "As each gateway sees it: they must agree.",
					Queries: one(sumBy("instance", sel("madang_fleet_gateways")), "{{instance}}")},
				{Title: "Connections of the fleet", Kind: Graph, Unit: short, About: "As each gateway reads it from the others' leases.",
					Queries: one(sumBy("instance", sel("madang_fleet_connections")), "{{instance}}")},
				{Title: "Deaths", Kind: Graph, Unit: perSec, About: "`declared` by the others, `announced` users, gateways `reborn` under a new ID, leases that could not be renewed.",
					Queries: []Query{
						{Expr: perSecondOf("madang_fleet_deaths_total"), Legend: "declared"},
						{Expr: perSecondOf("madang_fleet_announced_total"), Legend: "announced"},
						{Expr: perSecondOf("madang_fleet_reborn_total"), Legend: "reborn"},
						{Expr: perSecondOf("madang_lease_failures_total"), Legend: "renewals failed"},
					}},
			}},
		},
	}
}

func loadTest() Dashboard {
	cpu := func(job string) string { return sum(rate("process_cpu_seconds_total", `job="`+job+`"`)) }
	return Dashboard{
		UID: "madang-load-test", Title: "madang / Load test", About: "What each thing costs while a load test runs: compare with docs/scaling.md.",
		Rows: []Row{
			{"Load", []Panel{
				{Title: "Connections", Kind: Graph, Unit: short, About: "Open.", Queries: one(sum(sel("madang_connections", `state="open"`)), "open")},
				{Title: "Sends accepted", Kind: Graph, Unit: perSec, About: "Compare with what the tester offered.", Queries: one(sum(rate("madang_sends_total", `outcome="accepted"`)), "accepted")},
				{Title: "Deliveries", Kind: Graph, Unit: perSec, About: "Compare with what the tester received.", Queries: one(perSecondOf("madang_deliveries_total"), "deliveries")},
			}},
			{"Cost", []Panel{
				{Title: "API CPU per send", Kind: Graph, Unit: micros, About: "Everything that the APIs do, by accepted send.",
					Queries: one("1e6 * "+ratio(cpu("madang-api"), sum(rate("madang_sends_total", `outcome="accepted"`))), "per send")},
				{Title: "Gateway CPU per delivery", Kind: Graph, Unit: micros, About: "Everything that the gateways do, by delivery: falls as load rises.",
					Queries: one("1e6 * "+ratio(cpu("madang-gateway"), perSecondOf("madang_deliveries_total")), "per delivery")},
				{Title: "Memory per connection", Kind: Graph, Unit: bytesU, About: "Resident memory of the gateways by open connection; the kernel's socket is not in it.",
					Queries: one(ratio(sum(sel("process_resident_memory_bytes", `job="madang-gateway"`)), sum(sel("madang_connections", `state="open"`))), "per connection")},
				{Title: "Writes per delivery", Kind: Graph, Unit: short, About: "System calls.",
					Queries: one(ratio(perSecondOf("madang_socket_writes_total"), perSecondOf("madang_deliveries_total")), "writes")},
				{Title: "Commands per send", Kind: Graph, Unit: short, About: "Redis commands that the APIs send, by accepted send: 1.",
					Queries: one(ratio(sum(rate("madang_redis_commands_total", `job="madang-api"`, `lane="writes"`)), sum(rate("madang_sends_total", `outcome="accepted"`))), "commands")},
				{Title: "Bytes per delivery", Kind: Graph, Unit: bytesU, About: "On the wire, headers of TCP/IP apart.",
					Queries: one(ratio(perSecondOf("madang_sent_bytes_total"), perSecondOf("madang_deliveries_total")), "bytes")},
			}},
			{"Go", []Panel{
				{Title: "Garbage collection", Kind: Graph, Unit: percent, About: "Share of time that the program stood still for it.",
					Queries: one(rate("go_gc_duration_seconds_sum", `job=~"madang.*"`), "{{instance}}")},
				{Title: "Heap in use", Kind: Graph, Unit: bytesU, About: "By process.", Queries: one(sel("go_memstats_heap_inuse_bytes", `job=~"madang.*"`), "{{instance}}")},
				{Title: "Allocated", Kind: Graph, Unit: bytesPS, About: "By process.", Queries: one(rate("go_memstats_alloc_bytes_total", `job=~"madang.*"`), "{{instance}}")},
			}},
		},
	}
}
