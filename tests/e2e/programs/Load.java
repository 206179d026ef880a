import com.sun.net.httpserver.HttpServer;
import java.lang.management.ManagementFactory;
import java.net.InetSocketAddress;
import java.util.Arrays;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicLongArray;

/** Threads that count and make garbage, and a web server on 8080 that tells of them, a line of JSON. */
public class Load {
    static final int THREADS = 8;
    static final AtomicLongArray counts = new AtomicLongArray(THREADS);
    static final AtomicLong ticks = new AtomicLong();
    static final long[] kept = new long[1 << 20];

    static void work(int number) {
        byte[][] recent = new byte[64][];
        while (true) {
            recent[(int) (counts.incrementAndGet(number) % recent.length)] = new byte[1 << 16];
            if (counts.get(number) % 100 == 0) {
                pause(1);
            }
        }
    }

    static void pause(long milliseconds) {
        try {
            Thread.sleep(milliseconds);
        } catch (InterruptedException ended) {
            throw new IllegalStateException(ended);
        }
    }

    static String told() {
        long collections = 0;
        for (var collector : ManagementFactory.getGarbageCollectorMXBeans()) {
            collections += collector.getCollectionCount();
        }
        return String.format("{\"started\": %d, \"kept\": %d, \"counts\": %s, \"ticks\": %d, \"collections\": %d}",
            ManagementFactory.getRuntimeMXBean().getStartTime(), Arrays.hashCode(kept), counts, ticks.get(), collections);
    }

    public static void main(String[] arguments) throws Exception {
        for (int at = 0; at < kept.length; at++) {
            kept[at] = System.nanoTime() * 31 + at;
        }
        for (int number = 0; number < THREADS; number++) {
            int own = number;
            Thread.ofPlatform().daemon().start(() -> work(own));
        }
        Thread.ofVirtual().start(() -> {
            while (true) {
                pause(10);
                ticks.incrementAndGet();
            }
        });
        var server = HttpServer.create(new InetSocketAddress(8080), 16);
        server.createContext("/", exchange -> {
            byte[] body = told().getBytes();
            exchange.getResponseHeaders().set("Connection", "close");
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
    }
}
