import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;

/** The count of checks, and the description of the server that java_clients.py sends on stdin. */
final class Report {
    private static final ObjectMapper JSON = new ObjectMapper();

    final JsonNode world;
    private int passed;
    private final List<String> failures = new ArrayList<>();

    Report() throws Exception {
        world = JSON.readTree(System.in);
    }

    String text(String name) {
        return world.required(name).textValue();
    }

    void check(boolean ok, String what) {
        if (ok) {
            passed++;
        } else {
            failures.add(what);
        }
    }

    void same(Object found, Object expected, String what) {
        check(Objects.equals(found, expected), what + ": " + found + " is not " + expected);
    }

    /** Checks that a call fails, and that the messages of its exceptions have this part. */
    void refused(Step step, String part, String what) {
        try {
            step.run();
            check(false, what + ": accepted");
        } catch (Exception refusal) {
            String message = messages(refusal);
            check(message.contains(part), what + ": " + message + " has no " + part);
        }
    }

    /** Runs some checks; an exception is a failure of its own. */
    void chapter(String name, Step step) {
        try {
            step.run();
        } catch (Exception | LinkageError failure) {
            check(false, name + ": " + messages(failure) + " at " + failure.getStackTrace()[0]);
        }
    }

    /** Prints {"passed", "failures"} and ends the program, whatever threads the libraries have left. */
    void tell() throws Exception {
        System.out.println(JSON.writeValueAsString(Map.of("passed", passed, "failures", failures)));
        System.exit(0);
    }

    private static String messages(Throwable failure) {
        String message = failure.toString();
        return failure.getCause() == null ? message : message + " < " + messages(failure.getCause());
    }

    interface Step {
        void run() throws Exception;
    }
}
