/** The clients of this class path; see java_clients.py. */
final class NimbusKafka {
    public static void main(String[] arguments) throws Exception {
        Report report = new Report();
        new Nimbus(report).run();
        new Kafka(report).run();
        report.tell();
    }
}
