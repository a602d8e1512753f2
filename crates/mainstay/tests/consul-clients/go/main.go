// The client of Consul's makers, unmodified, against the door on the port given.
package main

import (
	"log"
	"os"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"
)

func main() {
	log.SetFlags(log.Lshortfile)
	config := api.DefaultConfig()
	config.Address = "127.0.0.1:" + os.Args[1]
	client, err := api.NewClient(config)
	must(err)
	pairs(client)
	services(client)
	locks(client)
	delay(client)
}

// Pairs, compare-and-set, and a query that is woken by its own key.
func pairs(client *api.Client) {
	kv := client.KV()
	missing, _, err := kv.Get("go/a", nil)
	must(err)
	ensure(missing == nil, "nothing is there yet")
	_, err = kv.Put(&api.KVPair{Key: "go/a", Value: []byte("one")}, nil)
	must(err)
	pair, meta, err := kv.Get("go/a", nil)
	must(err)
	ensure(string(pair.Value) == "one" && meta.LastIndex == pair.ModifyIndex, "it is read back")
	ensure(!cas(kv, "two", 0), "it is there already")
	ensure(cas(kv, "two", pair.ModifyIndex), "it is as it was read")
	ensure(!cas(kv, "late", pair.ModifyIndex), "it is no longer as it was read")

	pair, meta, err = kv.Get("go/a", nil)
	must(err)
	go func() {
		for n := 0; n < 20; n++ {
			_, err := kv.Put(&api.KVPair{Key: "go/other", Value: []byte(strconv.Itoa(n))}, nil)
			must(err)
		}
		_, err := kv.Put(&api.KVPair{Key: "go/a", Value: []byte("three")}, nil)
		must(err)
	}()
	began := time.Now()
	woken, later, err := kv.Get("go/a", &api.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: time.Minute})
	must(err)
	ensure(string(woken.Value) == "three", "nothing else wakes it")
	ensure(meta.LastIndex < later.LastIndex, "the index moves")
	ensure(time.Since(began) < 30*time.Second, "the change wakes it, not the clock")

	ok, answer, _, err := client.Txn().Txn(api.TxnOps{
		{KV: &api.KVTxnOp{Verb: api.KVSet, Key: "go/b", Value: []byte("both")}},
		{KV: &api.KVTxnOp{Verb: api.KVGet, Key: "go/b"}},
	}, nil)
	must(err)
	ensure(ok && string(answer.Results[1].KV.Value) == "both", "both happen")
}

func cas(kv *api.KV, value string, index uint64) bool {
	done, _, err := kv.CAS(&api.KVPair{Key: "go/a", Value: []byte(value), ModifyIndex: index}, nil)
	must(err)
	return done
}

// A service, found by a query that waits once its check passes.
func services(client *api.Client) {
	agent, health := client.Agent(), client.Health()
	must(agent.ServiceRegister(&api.AgentServiceRegistration{
		ID: "go-1", Name: "go", Port: 80, Tags: []string{"v1"}, Meta: map[string]string{"a": "b"},
		Check: &api.AgentServiceCheck{TTL: "10m"},
	}))
	entries, meta, err := health.Service("go", "v1", true, nil)
	must(err)
	ensure(len(entries) == 0, "its check has not passed")
	go func() { must(agent.UpdateTTL("service:go-1", "fine", api.HealthPassing)) }()
	began := time.Now()
	entries, later, err := health.Service("go", "v1", true, &api.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: time.Minute})
	must(err)
	ensure(len(entries) == 1 && entries[0].Service.ID == "go-1", "it has passed")
	ensure(entries[0].Service.Meta["a"] == "b", "it bears what it was registered with")
	ensure(entries[0].Checks.AggregatedStatus() == api.HealthPassing, "all its checks pass")
	ensure(meta.LastIndex < later.LastIndex, "the index moves")
	ensure(time.Since(began) < 30*time.Second, "the change wakes it, not the clock")
	names, _, err := client.Catalog().Services(nil)
	must(err)
	ensure(len(names["go"]) == 1, "it is in the catalog")
	must(agent.ServiceDeregister("go-1"))
	gone, _, err := client.Catalog().Service("go", "", nil)
	must(err)
	ensure(len(gone) == 0, "it is gone")
}

// The client's own recipe of a lock: one holds it, the other waits and gets it.
func locks(client *api.Client) {
	lock := func(name string) *api.Lock {
		lock, err := client.LockOpts(&api.LockOptions{
			Key: "go/lock", Value: []byte(name), SessionName: name, SessionTTL: "10s",
		})
		must(err)
		return lock
	}
	first, second := lock("first"), lock("second")
	lost, err := first.Lock(nil)
	must(err)
	held := make(chan struct{})
	go func() {
		_, err := second.Lock(nil)
		must(err)
		close(held)
	}()
	select {
	case <-held:
		log.Fatal("two hold it at once")
	case <-lost:
		log.Fatal("it was lost")
	case <-time.After(300 * time.Millisecond):
	}
	must(first.Unlock())
	select {
	case <-held:
	case <-time.After(20 * time.Second):
		log.Fatal("the other one never gets it")
	}
	must(second.Unlock())
	must(second.Destroy())
}

// What a destroyed session held is held back for its delay.
func delay(client *api.Client) {
	sessions := client.Session()
	session := func() string {
		id, _, err := sessions.Create(&api.SessionEntry{TTL: "10s", LockDelay: time.Second}, nil)
		must(err)
		return id
	}
	first, second := session(), session()
	ensure(acquire(client, first), "nobody holds it")
	ensure(!acquire(client, second), "it is held")
	_, _, err := sessions.Renew(first, nil)
	must(err)
	_, err = sessions.Destroy(first, nil)
	must(err)
	ensure(!acquire(client, second), "the delay holds")
	for began := time.Now(); !acquire(client, second); time.Sleep(50 * time.Millisecond) {
		ensure(time.Since(began) < 20*time.Second, "the delay ends")
	}
	pair, _, err := client.KV().Get("go/delayed", nil)
	must(err)
	ensure(pair.Session == second, "it is the second one's")
}

func acquire(client *api.Client, session string) bool {
	done, _, err := client.KV().Acquire(&api.KVPair{Key: "go/delayed", Session: session}, nil)
	must(err)
	return done
}

func must(err error) {
	if err != nil {
		log.Output(2, err.Error())
		os.Exit(1)
	}
}

func ensure(holds bool, what string) {
	if !holds {
		log.Output(2, "not so: "+what)
		os.Exit(1)
	}
}
